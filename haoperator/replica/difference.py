# SPDX-License-Identifier: Apache-2.0
"""What a verification found to differ between the two copies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from haoperator.replica.marks import Kind, Mark

SHOWN = 100
"""Differences that are shown; all are counted."""
KEPT = 10_000
"""Differences that are kept, for a repair one by one."""


class What(StrEnum):
    """What differs."""

    CONTENT = "content"
    SIZE = "size"
    MODE = "mode"
    OWNER = "owner"
    MTIME = "mtime"
    XATTRS = "xattrs"
    TARGET = "target"
    DEVICE = "device"
    KIND = "kind"
    LINKS = "links"
    MISSING = "missing"
    EXTRA = "extra"
    UNREADABLE = "unreadable"
    """Not compared: the primary itself cannot read it."""


OF_A_NAME = (What.MODE, What.OWNER, What.MTIME, What.XATTRS)
"""What differs here does not mean that content, or what is below, does."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference at one path. Content differs in whole blocks, from `offset` on."""

    directory: str
    path: bytes
    what: What
    detail: str = ""
    offset: int = 0
    length: int = 0

    @property
    def end(self) -> int:
        return self.offset + self.length

    @property
    def mark(self) -> Mark:
        """As a resync is told of it."""
        kind = Kind.ENTRY if self.what in OF_A_NAME or not self.path else Kind.ALL
        return Mark(kind, self.directory.encode(), self.path)

    def to_json(self) -> dict[str, Any]:
        said = {
            "directory": self.directory,
            "path": os.fsdecode(self.path),
            "what": self.what.value,
            "detail": self.detail,
        }
        if self.what is What.CONTENT:
            return said | {"offset": self.offset, "length": self.length}
        return said


class Differences:
    """What was found so far: adjacent blocks as one. Written by one thread, read by any."""

    def __init__(self) -> None:
        self.count = 0
        self._kept: list[Difference] = []

    def __iter__(self) -> Iterator[Difference]:
        return iter(list(self._kept))

    @property
    def complete(self) -> bool:
        """All that were found are kept."""
        return self.count == len(self._kept)

    def add(self, found: Difference) -> None:
        if self.count and self._extends_last(found):
            last = self._kept[-1]
            self._kept[-1] = replace(last, length=last.length + found.length)
            return
        self.count += 1
        if len(self._kept) < KEPT:
            self._kept.append(found)

    def _extends_last(self, found: Difference) -> bool:
        last = self._kept[-1]
        return (
            found.what is last.what is What.CONTENT
            and (found.directory, found.path, found.offset)
            == (last.directory, last.path, last.end)
        )  # fmt: skip
