# SPDX-License-Identifier: Apache-2.0
"""The reference of the language, as Markdown, made from the schema."""

from __future__ import annotations

from tomlconfig.grammar import Key, Table
from tomlconfig.hints import one_of
from tomlconfig.schema import TABLES


def render_reference() -> str:
    """Every supported table and key with its type, default and meaning; then what is to come."""
    parts = ["# Configuration reference", _INTRODUCTION]
    parts += [_table(table) for table in TABLES.values() if table.supported]
    parts += ["## Not supported yet", _LATER, "\n".join(_later_keys())]
    return "\n\n".join(parts) + "\n"


_INTRODUCTION = """\
`/etc/haoperator/cluster.toml`, in [TOML](https://toml.io), the same on both nodes.
Names of tables consist of letters, digits, `-` and `_`. Durations and sizes carry
their unit: `ms`, `s`, `m`, `h`, `d`; `B`, `kB`, `MB`, `GB`, `TB`, `KiB`, `MiB`, `GiB`,
`TiB`. A file with an error in it changes nothing; `hactl check-config` shows all of them."""

_LATER = """\
These words are reserved. Using one is an error, so that no key is ever without effect."""


def _table(table: Table) -> str:
    header = f"[{table.name}.NAME]" if table.named else f"[{table.name}]"
    lines = [f"## `{header}`", "", table.meaning]
    choice = _choice(table)
    if len(choice) > 1:
        lines += ["", f"Exactly one of {one_of(choice, '`')}."]
    if table.any_of:
        lines += ["", f"At least one of {one_of(table.any_of, '`')}."]
    if table.free_keys is not None:
        what = "the names of the nodes" if table.name == "link" else "names that you choose"
        lines += ["", f"Keys: {what}; values: {table.free_keys.expected}."]
    keys = [key for key in table.keys if key.supported]
    if keys:
        lines += ["", "| key | type | default | meaning |", "|---|---|---|---|"]
        lines += [_row(key, table) for key in keys]
    return "\n".join(lines)


def _choice(table: Table) -> list[str]:
    """The keys of which exactly one must be there, as far as they are supported."""
    return [key.name for key in table.keys if key.name in table.one_of and key.supported]


def _row(key: Key, table: Table) -> str:
    quoted = [f'"{choice}"' for choice in key.choices]
    kind = one_of(quoted, "`") if quoted else key.type.name
    if key.at_least is not None:
        kind += f", {key.at_least} to {key.at_most}"
    if key.required or _choice(table) == [key.name]:
        default = "required"
    elif isinstance(key.default, str):
        default = f'`"{key.default}"`'
    else:
        default = f"`{key.default}`" if key.default not in (None, [], {}) else ""
    meaning = key.meaning
    if key.only_with:
        meaning += f" (with {one_of(key.only_with, '`')} only)"
    return f"| `{key.name}` | {kind} | {default} | {meaning} |"


def _later_keys() -> list[str]:
    lines = []
    for table in TABLES.values():
        header = f"[{table.name}.NAME]" if table.named else f"[{table.name}]"
        words = [f"`{key.name}`" for key in table.keys if not key.supported]
        words += [
            f'`{key.name} = "{choice}"`' for key in table.keys for choice in key.choices_later
        ]
        if words:
            lines.append(f"- `{header}`: {', '.join(words)}")
    return lines
