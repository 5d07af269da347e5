# SPDX-License-Identifier: Apache-2.0
"""The types of values in the language: what is written, and what it becomes.

Each type reads one TOML value, whose macros are replaced already, or raises
`Wrong`. What a type expects is said once, here, for errors and for the reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass


class Wrong(Exception):
    """The value is not of its type. `at` leads to the part of it that is not."""

    def __init__(self, message: str, hint: str = "", at: tuple[str | int, ...] = ()) -> None:
        super().__init__(message)
        self.message, self.hint, self.at = message, hint, at


@dataclass(frozen=True, slots=True)
class Type:
    """`name` for the reference, `expected` for errors, `read` from TOML to Python.

    A list of it has no element twice, if it is `unique`.
    """

    name: str
    expected: str
    read: Callable[[object], object]
    unique: bool = True


NAME_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,64}")

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)", re.ASCII)
_PERCENTAGE = re.compile(r"(\d{1,2}(?:\.\d+)?)%", re.ASCII)
_SIZES = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)", re.ASCII)


def shown(value: object) -> str:
    """How a value is quoted in an error."""
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _bare_number(value: object, example: str) -> None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise Wrong(f"a bare number, {value}, says no unit", f"write for example {example}")


def text_of(value: object) -> str:
    """`value`, if it is a string of one line with something in it. Raises Wrong."""
    if not isinstance(value, str):
        raise Wrong("")
    if not value.strip():
        raise Wrong("it is empty")
    if any(ord(char) < 32 or ord(char) == 127 for char in value):
        raise Wrong("it contains a control character")
    return value


def _duration(value: object) -> float:
    _bare_number(value, f'"{value}s" or "{value}ms"')
    match = _DURATION.fullmatch(value) if isinstance(value, str) and len(value) < 32 else None
    if match is None:
        raise Wrong("")
    return float(match[1]) * _UNITS[match[2]]


def _size(value: object) -> int:
    _bare_number(value, f'"{value}MiB"')
    match = _SIZE.fullmatch(value) if isinstance(value, str) and len(value) < 32 else None
    if match is None:
        raise Wrong("")
    return int(float(match[1]) * _SIZES[match[2]])


def _share(value: object) -> str:
    _bare_number(value, f'"{value}%" or "{value}GiB"')
    if isinstance(value, str) and (match := _PERCENTAGE.fullmatch(value)):
        if not 0 < float(match[1]) < 100:
            raise Wrong("it is none from 0% to 100%")
        return value
    return str(_size(value))


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise Wrong("")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise Wrong("")
    return value


def _name(value: object) -> str:
    if not isinstance(value, str) or not NAME_PATTERN.fullmatch(value):
        raise Wrong("")
    return value


def _anything(value: object) -> object:
    return value


TEXT = Type("string", "a string", text_of)
DURATION = Type(
    "duration", 'a duration with its unit (ms, s, m, h, d), such as "200ms" or "24h"', _duration
)
SIZE = Type("size", 'a size with its unit, such as "64KiB" or "10MB"', _size)
SHARE = Type("size or percentage", 'a size or a percentage, such as "2GiB" or "10%"', _share)
COUNT = Type("whole number", "a whole number", _count)
FLAG = Type("boolean", "true or false", _flag)
NAME = Type("name", "a name of letters, digits, - and _ (at most 64)", _name)
ANYTHING = Type("see issue", "any value", _anything)


def list_of(item: Type, *, may_be_empty: bool = True) -> Type:
    """A TOML array whose elements are all of the type `item`."""

    def read(value: object) -> tuple[object, ...]:
        if not isinstance(value, list):
            raise Wrong("", f"put it in brackets: [{shown(value)}]" if value else "")
        if not value and not may_be_empty:
            raise Wrong("the list is empty")
        elements: list[object] = []
        for index, element in enumerate(value):
            try:
                elements.append(item.read(element))
            except Wrong as wrong:
                reason = f": {wrong.message}" if wrong.message else f", not {item.expected}"
                raise Wrong(
                    f"element {index + 1} is {shown(element)}{reason}", wrong.hint, (index,)
                ) from None
            if item.unique and elements[-1] in elements[:-1]:
                raise Wrong(f"{shown(element)} is there twice", at=(index,))
        return tuple(elements)

    return Type(f"list of {item.name}", f"a list; each element {item.expected}", read)
