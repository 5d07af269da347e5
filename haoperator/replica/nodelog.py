# SPDX-License-Identifier: Apache-2.0
"""The node table written down, so that the next process can serve the same mount.

The kernel goes on using the node ids that it was told. The file lies in /run: it has to
survive the process, not the machine. Records are appended by write(2), before the
kernel hears of the node, and replayed at the start. A name counts only if it leads to the
inode that it led to; a rename is written down before it happens and taken back after, so
that one of the two names is right whenever the process dies.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_HEAD = struct.Struct("<8sIIQ")
"""Magic, what INIT agreed on (minor version, `_WRITEBACK` or nothing), an id below which all
may have been given out."""
_WRITEBACK = 1
_MAGIC = b"HANODES2"
_RECORD = struct.Struct("<BQQQH")
"""Kind, node id, parent id, inode, length of the name that follows."""
_NAMED, _UNNAMED, _DROPPED, _GIVEN, _GIVEN_UP, _ROLE = 1, 2, 3, 4, 5, 6


class LoggedName(NamedTuple):
    parent: int
    name: bytes
    inode: int


class Names(NamedTuple):
    """What a former process knew."""

    minor: int
    nodes: dict[int, list[LoggedName]]
    """Node id → its names, in the order learned."""
    last: int
    """The highest node id that was ever given out, dropped ones included."""
    writeback: bool = False
    """The kernel caches writes."""
    given_up: frozenset[int] = frozenset()
    """Nodes whose inode got another id since."""
    wrote: bool = False
    """It served as a primary last: the kernel may know sizes that nobody else knows."""


class NodeLog:
    """Append-only file of one directory, written anew when most of it is history."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = self._open(path)
        self._size = os.fstat(self._fd).st_size
        self._minor = 0
        self._writeback = False
        self._wrote = False

    @staticmethod
    def _open(path: Path) -> int:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    @property
    def size(self) -> int:
        """In bytes."""
        return self._size

    def begin(self, minor: int, last: int = 0, *, writeback: bool = False) -> None:
        """A new mount: nothing of a former one holds. What INIT agreed on is kept."""
        os.ftruncate(self._fd, 0)
        self._size = 0
        self._minor = minor
        self._writeback = writeback
        self._write(self._head(last))

    def _head(self, last: int) -> bytes:
        head = _HEAD.pack(_MAGIC, self._minor, _WRITEBACK if self._writeback else 0, last)
        return head + _record(_ROLE, int(self._wrote))

    def rewrite(
        self, last: int, names: Iterable[tuple[int, LoggedName]], given_up: Iterable[int] = ()
    ) -> None:
        """Replace all of it by what holds now: whole, or not at all."""
        temporary = self._path.with_name(self._path.name + ".new")
        temporary.unlink(missing_ok=True)
        data = self._head(last)
        data += b"".join(_record(_NAMED, node, *logged) for node, logged in names)
        data += b"".join(_record(_GIVEN_UP, node) for node in given_up)
        fd = self._open(temporary)
        os.write(fd, data)
        os.replace(temporary, self._path)
        os.close(self._fd)
        self._fd, self._size = fd, len(data)

    def replay(self) -> Names | None:
        """What the former process wrote; None where there is nothing to go on with."""
        data = os.pread(self._fd, os.fstat(self._fd).st_size, 0)
        if len(data) < _HEAD.size:
            return None
        magic, minor, flags, last = _HEAD.unpack_from(data)
        if magic != _MAGIC:
            return None
        self._minor = minor
        self._writeback = bool(flags & _WRITEBACK)
        nodes: dict[int, list[LoggedName]] = {}
        given_up: set[int] = set()
        end = _HEAD.size
        for after, kind, node, logged in _records(data, _HEAD.size):
            end = after
            if kind == _ROLE:
                self._wrote = bool(node)
                continue
            last = max(last, node)
            names = nodes.get(node, [])
            if kind == _NAMED and logged not in names:
                nodes.setdefault(node, names).append(logged)
            elif kind == _UNNAMED and logged in names:
                names.remove(logged)
            elif kind == _GIVEN_UP:
                given_up.add(node)
            elif kind == _DROPPED:
                nodes.pop(node, None)
                given_up.discard(node)
        os.ftruncate(self._fd, end)  # half a record, if the process died writing it
        self._size = end
        return Names(minor, nodes, last, self._writeback, frozenset(given_up), self._wrote)

    def named(self, node: int, parent: int, name: bytes, inode: int) -> None:
        self._write(_record(_NAMED, node, parent, name, inode))

    def unnamed(self, node: int, parent: int, name: bytes, inode: int) -> None:
        self._write(_record(_UNNAMED, node, parent, name, inode))

    def dropped(self, node: int) -> None:
        self._write(_record(_DROPPED, node))

    def given(self, node: int) -> None:
        """The id of something without a name: not to be given out again."""
        self._write(_record(_GIVEN, node))

    def given_up(self, node: int) -> None:
        """The inode gets another id when it is looked up next."""
        self._write(_record(_GIVEN_UP, node))

    def serves(self, *, writes: bool) -> None:
        """From here on in this role."""
        if writes != self._wrote:
            self._wrote = writes
            self._write(_record(_ROLE, int(writes)))

    def close(self, *, remove: bool) -> None:
        os.close(self._fd)
        if remove:
            self._path.unlink(missing_ok=True)

    def _write(self, record: bytes) -> None:
        os.write(self._fd, record)
        self._size += len(record)


def _record(kind: int, node: int, parent: int = 0, name: bytes = b"", inode: int = 0) -> bytes:
    return _RECORD.pack(kind, node, parent, inode, len(name)) + name


def _records(data: bytes, at: int) -> Iterator[tuple[int, int, int, LoggedName]]:
    """(end of the record, kind, node, name) for each whole one."""
    while at + _RECORD.size <= len(data):
        kind, node, parent, inode, length = _RECORD.unpack_from(data, at)
        at += _RECORD.size + length
        if at > len(data):
            return
        yield at, kind, node, LoggedName(parent, data[at - length : at], inode)
