# SPDX-License-Identifier: Apache-2.0
"""What can be said about a table or a key of the language."""

from __future__ import annotations

from dataclasses import dataclass

from tomlconfig.values import ANYTHING, Type


@dataclass(frozen=True, slots=True)
class Key:
    """One key. `default` is written as in the file; `only_with` names keys of its table."""

    name: str
    type: Type
    meaning: str
    required: bool = False
    default: object = None
    choices: tuple[str, ...] = ()
    choices_later: tuple[str, ...] = ()
    at_least: object = None
    at_most: object = None
    only_with: tuple[str, ...] = ()
    also_called: tuple[str, ...] = ()
    supported: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """One table, `[name]`, or `[name.NAME]` as often as needed if it is `named`.

    `one_of` are keys of which exactly one stands in the table, `any_of` those of which
    at least one does. In a table with `free_keys` the user chooses the keys, each with a
    value of that type.
    """

    name: str
    meaning: str
    keys: tuple[Key, ...] = ()
    named: bool = False
    required: bool = False
    one_of: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()
    free_keys: Type | None = None
    also_called: tuple[str, ...] = ()
    supported: bool = True

    def key(self, name: str) -> Key | None:
        return next((key for key in self.keys if key.name == name), None)


def later(name: str, meaning: str, *also_called: str) -> Key:
    """A key that is known and refused until it works."""
    return Key(name, ANYTHING, meaning, also_called=also_called, supported=False)
