# SPDX-License-Identifier: Apache-2.0
"""A file as tables of typed values: everything that the schema alone can check.

What needs more than one key to be judged is in `tomlconfig.rules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from tomlconfig import macros
from tomlconfig.errors import Problem
from tomlconfig.grammar import Key, Table
from tomlconfig.hints import nearest_entry, nearest_word, one_of
from tomlconfig.locate import Lines
from tomlconfig.schema import TABLES
from tomlconfig.values import NAME_PATTERN, Type, Wrong, shown

T = TypeVar("T")


@dataclass(slots=True)
class Section:
    """One table of the file. `values` holds what was read, defaults included.

    A value that is wrong is absent (its problem is noted); `given` has every key
    that is written in the file.
    """

    table: Table
    name: str
    values: dict[str, object] = field(default_factory=dict)
    given: frozenset[str] = frozenset()

    @property
    def path(self) -> tuple[str, ...]:
        return (self.table.name, self.name) if self.table.named else (self.table.name,)

    def get(self, key: str, kind: type[T]) -> T | None:
        """The value of `key`, None where there is none or it was wrong."""
        value = self.values.get(key)
        if value is None:
            return None
        assert isinstance(value, kind), (key, value)
        return value

    def need(self, key: str, kind: type[T]) -> T:
        """The value of a key that is there when the file has no problem."""
        value = self.get(key, kind)
        assert value is not None, f"{'.'.join(self.path)}.{key}"
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """The elements of a list of strings; empty where there is none."""
        return tuple(str(element) for element in self.get(key, tuple) or ())


class Document:
    """The sections of one file, and the problems found in it so far."""

    def __init__(self, file: Path, text: str, raw: Mapping[str, object]) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self._lines = Lines(text)
        self._sections: dict[str, list[Section]] = {name: [] for name in TABLES}
        self._macros = self._read_macros(raw.get("macros", {}))
        for name, content in raw.items():
            self._read_top(name, content)
        for table in TABLES.values():
            if table.required and table.name not in raw:
                label = f"[{table.name}.NAME]" if table.named else f"[{table.name}]"
                self.report((), f"there is no {label}", table.meaning)
            elif not table.named and table.name not in raw and table.supported:
                self._read_section(table, "", {}, written=False)

    def all(self, table: str) -> list[Section]:
        """The sections `[table.NAME]` in the order of the file."""
        return self._sections[table]

    def one(self, table: str) -> Section:
        """The section `[table]`, with nothing but defaults if it is not in the file."""
        return next(iter(self._sections[table]), None) or Section(TABLES[table], "")

    def report(self, path: tuple[str | int, ...], message: str, hint: str = "") -> None:
        key = ""
        for part in path:
            key += f"[{part}]" if isinstance(part, int) else f".{part}" if key else str(part)
        self.problems.append(Problem(self.file, self._lines.of(path), key, message, hint))

    def _read_macros(self, content: object) -> dict[str, str]:
        defined: dict[str, str] = {}
        if not isinstance(content, dict):
            return defined  # reported with the other tables
        for name, text in content.items():
            path = ("macros", name)
            if not macros.MACRO_NAME.fullmatch(name):
                self.report(path, "expected a name of letters, digits and _ that begins no digit")
            elif not isinstance(text, str):
                self.report(path, f"expected a string, got {shown(text)}", "put it in quotes")
            else:
                expanded = self._expanded(text, path, defined)
                defined[name] = expanded if isinstance(expanded, str) else ""
        return defined

    def _read_top(self, name: str, content: object) -> None:
        table = TABLES.get(name)
        if table is None:
            self.report((name,), "unknown table", nearest_entry(name, tuple(TABLES.values())))
        elif not table.supported:
            self.report((name,), "not supported yet", "take this table out")
        elif not isinstance(content, dict):
            label = f"[{name}.NAME]" if table.named else f"[{name}]"
            self.report((name,), f"expected a table, {label}, got {shown(content)}")
        elif name == "macros":
            pass
        elif not table.named:
            self._read_section(table, "", content)
        else:
            for section_name, section in content.items():
                self._read_named(table, section_name, section)

    def _read_named(self, table: Table, name: str, content: object) -> None:
        path = (table.name, name)
        if not isinstance(content, dict):
            hint = f"each [{table.name}.NAME] has a name that you choose; this may belong into one"
            self.report(path, f"expected a table, got {shown(content)}", hint)
        elif not NAME_PATTERN.fullmatch(name):
            message = "expected a name of letters, digits, - and _ (at most 64)"
            self.report(path, f"{message}, got {shown(name)}")
        else:
            self._read_section(table, name, content)

    def _read_section(
        self, table: Table, name: str, content: Mapping[str, object], *, written: bool = True
    ) -> None:
        section = Section(table, name, given=frozenset(content))
        self._sections[table.name].append(section)
        for key_name, value in content.items():
            path = (*section.path, key_name)
            key = table.key(key_name)
            if key is not None:
                self._read_key(section, key, value)
            elif table.free_keys is not None:
                self._store(section, key_name, table.free_keys, value)
            else:
                self.report(path, "unknown key", nearest_entry(key_name, table.keys))
        for key in table.keys:
            if key.name in content:
                continue
            if key.default is not None:
                section.values[key.name] = key.type.read(key.default)
            elif key.required and written:
                message = f'the key "{key.name}" is missing; expected {key.type.expected}'
                self.report(section.path, message, key.meaning)
        self._check_one_of(section)
        if written and table.any_of and not section.given.intersection(table.any_of):
            message = f"expected at least one of the keys {one_of(table.any_of, quote='')}"
            self.report(section.path, message, table.meaning)

    def _read_key(self, section: Section, key: Key, value: object) -> None:
        path = (*section.path, key.name)
        if not key.supported:
            self.report(path, "not supported yet", "take this key out")
            return
        if value in key.choices_later:
            self.report(path, f"{shown(value)} is not supported yet", one_of(key.choices))
        elif not self._store(section, key.name, key.type, value):
            return
        elif key.choices and section.values[key.name] not in key.choices:
            del section.values[key.name]
            hint = nearest_word(str(value), key.choices)
            self.report(path, f"expected {one_of(key.choices)}, got {shown(value)}", hint)
        elif not _in_bounds(key, section.values[key.name]):
            del section.values[key.name]
            bounds = f"from {key.at_least} to {key.at_most}"
            self.report(path, f"expected {key.type.name} {bounds}, got {shown(value)}")

    def _store(self, section: Section, key: str, kind: Type, value: object) -> bool:
        path = (*section.path, key)
        expanded = self._expanded(value, path, self._macros)
        if expanded is None:
            return False
        try:
            section.values[key] = kind.read(expanded)
        except Wrong as wrong:
            reason = f": {wrong.message}" if wrong.message else ""
            message = f"expected {kind.expected}, got {shown(expanded)}{reason}"
            self.report((*path, *wrong.at), message, wrong.hint)
            return False
        return True

    def _expanded(
        self, value: object, path: tuple[str | int, ...], defined: Mapping[str, str]
    ) -> object:
        """`value` with the macros in all its strings replaced; None if one is not defined."""
        if isinstance(value, str):
            try:
                return macros.expand(value, defined)
            except macros.UndefinedMacro as err:
                hint = nearest_word(err.name, list(defined))
                hint = hint or f"define {err.name or 'it'} in [macros], before it is used"
                self.report(path, f"the macro {shown(err.use)[1:-1]} is not defined", hint)
                return None
        if isinstance(value, list):
            items = [self._expanded(item, (*path, i), defined) for i, item in enumerate(value)]
            return None if None in items else items
        if isinstance(value, dict):
            table = {key: self._expanded(val, (*path, key), defined) for key, val in value.items()}
            return None if None in table.values() else table
        return value

    def _check_one_of(self, section: Section) -> None:
        table = section.table
        if not table.one_of:
            return
        named = [key for key in table.one_of if key in section.given]
        supported = [key for key in table.keys if key.name in table.one_of and key.supported]
        wanted = one_of([key.name for key in supported], quote="")
        if not named:
            self.report(section.path, f"expected exactly one of the keys {wanted}, got none")
        elif len(named) > 1:
            message = f"expected exactly one of the keys {wanted}, got {' and '.join(named)}"
            self.report((*section.path, named[1]), message)
        for key in table.keys:
            misplaced = key.only_with and not set(key.only_with) & set(named)
            if named and misplaced and key.name in section.given:
                message = f"this key goes with {one_of(key.only_with, quote='')} only"
                self.report((*section.path, key.name), message, f"this table has {named[0]}")


def _in_bounds(key: Key, value: object) -> bool:
    if key.at_least is None or not isinstance(value, int | float):
        return True
    least, most = key.type.read(key.at_least), key.type.read(key.at_most)
    assert isinstance(least, int | float)
    assert isinstance(most, int | float)
    return least <= value <= most
