# SPDX-License-Identifier: Apache-2.0
"""On which line of a TOML text a key stands.

tomli gives values without their places. This walks over a text that tomli has
already accepted, so it needs to know only where strings, arrays and inline tables
begin and end (https://toml.io/en/v1.0.0), and notes the line of each table, key
and array element.
"""

from __future__ import annotations

import contextlib
import re
from bisect import bisect_left

Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRINGS = (
    re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}', re.DOTALL),
    re.compile(r"'''.*?'{3,5}", re.DOTALL),
    re.compile(r'"((?:[^"\\\n]|\\.)*)"'),
    re.compile(r"'([^'\n]*)'"),
)
_SCALAR = re.compile(r"[^,\]}#\r\n]+")
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)
_SIMPLE_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r"}


class Lines:
    """The line of every table, key and array element of one text."""

    def __init__(self, text: str) -> None:
        # As tomli does: so that offsets agree with what it read.
        self._text = text.replace("\r\n", "\n")
        self._at = 0
        self._lines: dict[Path, int] = {}
        self._array_tables: dict[Path, int] = {}
        self._newlines = [i for i, char in enumerate(self._text) if char == "\n"]
        # When it is lost: what was found is right, the rest falls back to its nearest table.
        with contextlib.suppress(_Lost, RecursionError):
            self._document()

    def of(self, path: Path) -> int:
        """The line of `path`, or of the nearest table around it; 0 if there is none."""
        while path:
            if (line := self._lines.get(path)) is not None:
                return line
            path = path[:-1]
        return 0

    def _note(self, path: Path, offset: int) -> None:
        line = bisect_left(self._newlines, offset) + 1
        for length in range(1, len(path) + 1):
            self._lines.setdefault(path[:length], line)

    def _document(self) -> None:
        table: Path = ()
        while True:
            self._skip(_BLANK)
            if self._at >= len(self._text):
                return
            start = self._at
            if self._take("[["):
                table = self._array_table(self._dotted_key())
                self._expect("]]")
                self._lines.setdefault(table, 0)
                del self._lines[table]
                self._note(table, start)
            elif self._take("["):
                table = self._resolved(self._dotted_key())
                self._expect("]")
                # The header itself says more than a sub-table that came before it.
                self._lines.pop(table, None)
                self._note(table, start)
            else:
                self._pair(table)

    def _array_table(self, key: Path) -> Path:
        key = self._resolved(key[:-1]) + key[-1:]
        index = self._array_tables.get(key, -1) + 1
        self._array_tables[key] = index
        return (*key, index)

    def _resolved(self, key: Path) -> Path:
        """`key` with the index of the newest element after each array of tables."""
        path: Path = ()
        for part in key:
            path = (*path, part)
            if (index := self._array_tables.get(path)) is not None:
                path = (*path, index)
        return path

    def _pair(self, table: Path) -> None:
        start = self._at
        path = table + self._dotted_key()
        self._note(path, start)
        self._expect("=")
        self._value(path)

    def _dotted_key(self) -> Path:
        parts: list[str | int] = []
        while True:
            self._skip(_SPACE)
            if (bare := self._skip(_BARE_KEY)) is not None:
                parts.append(bare)
            else:
                parts.append(self._quoted_key())
            self._skip(_SPACE)
            if not self._take("."):
                return tuple(parts)

    def _quoted_key(self) -> str:
        for pattern in _STRINGS[2:]:
            if match := pattern.match(self._text, self._at):
                self._at = match.end()
                content = match.group(1)
                return _unescaped(content) if match.group(0)[0] == '"' else content
        raise _Lost

    def _value(self, path: Path) -> None:
        self._skip(_SPACE)
        if self._take("["):
            self._elements(path, "]")
        elif self._take("{"):
            self._elements(path, "}")
        else:
            for pattern in (*_STRINGS, _SCALAR):
                if self._skip(pattern) is not None:
                    return
            raise _Lost

    def _elements(self, path: Path, end: str) -> None:
        index = 0
        while True:
            self._skip(_BLANK)
            if self._take(end):
                return
            if end == "]":
                self._note((*path, index), self._at)
                self._value((*path, index))
            else:
                self._pair(path)
            index += 1
            self._skip(_BLANK)
            self._take(",")

    def _skip(self, pattern: re.Pattern[str]) -> str | None:
        match = pattern.match(self._text, self._at)
        if match is None:
            return None
        self._at = match.end()
        return match.group(0)

    def _take(self, token: str) -> bool:
        if not self._text.startswith(token, self._at):
            return False
        self._at += len(token)
        return True

    def _expect(self, token: str) -> None:
        self._skip(_SPACE)
        if not self._take(token):
            raise _Lost


class _Lost(Exception):
    """The walk met something that it does not know."""


def _unescaped(text: str) -> str:
    def one(match: re.Match[str]) -> str:
        if code := match.group(1) or match.group(2):
            return chr(int(code, 16))
        return _SIMPLE_ESCAPES.get(match.group(3), match.group(3))

    return _ESCAPE.sub(one, text)
