# SPDX-License-Identifier: Apache-2.0
"""`${NAME}` in a string stands for the text that [macros] gives to NAME."""

from __future__ import annotations

import re
from collections.abc import Mapping

MACRO_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# $${ is a way to write ${ itself, for commands that have their own.
_USE = re.compile(r"\$\$\{|\$\{([^}]*)\}?")


class UndefinedMacro(Exception):
    """A string uses a macro that is not defined before it."""

    def __init__(self, use: str, name: str) -> None:
        super().__init__(use)
        self.use, self.name = use, name


def expand(text: str, macros: Mapping[str, str]) -> str:
    """`text` with its macros replaced. Raises UndefinedMacro."""

    def replacement(match: re.Match[str]) -> str:
        if match.group(0) == "$${":
            return "${"
        name = match.group(1)
        if name not in macros or not match.group(0).endswith("}"):
            raise UndefinedMacro(match.group(0), name)
        return macros[name]

    return _USE.sub(replacement, text)
