# SPDX-License-Identifier: Apache-2.0
"""The node table written down, so that the next process can serve the same mount.

The kernel goes on using the node ids that it was told. The file lies in /run: it has to
survive the process, not the machine. Records are appended by write(2), before the
kernel hears of the node, and replayed at the start; nothing in it is trusted further
than the names lead.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_HEAD = struct.Struct("<8sII")
_MAGIC = b"HANODES1"
_RECORD = struct.Struct("<BQQH")
_NAMED, _UNNAMED, _DROPPED = 1, 2, 3
_SLACK = 20_000
"""Records beyond twice the live ones before the file is written anew at a start."""


class Names(NamedTuple):
    """What a former process knew: node id → names as (parent id, name), in the order learned."""

    minor: int
    nodes: dict[int, list[tuple[int, bytes]]]


class NodeLog:
    """Append-only file of one directory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._written = os.fstat(self._fd).st_size

    def begin(self, minor: int) -> None:
        """A new mount: nothing of a former one holds. `minor` was agreed on by INIT."""
        os.ftruncate(self._fd, 0)
        self._write(_HEAD.pack(_MAGIC, minor, 0))

    def replay(self) -> Names | None:
        """What the former process wrote; None where there is nothing to go on with."""
        data = os.pread(self._fd, os.fstat(self._fd).st_size, 0)
        if len(data) < _HEAD.size:
            return None
        magic, minor, _ = _HEAD.unpack_from(data)
        if magic != _MAGIC:
            return None
        nodes: dict[int, list[tuple[int, bytes]]] = {}
        count = 0
        for kind, node, parent, name in _records(data, _HEAD.size):
            count += 1
            if kind == _NAMED:
                nodes.setdefault(node, []).append((parent, name))
            elif kind == _UNNAMED and (parent, name) in nodes.get(node, ()):
                nodes[node].remove((parent, name))
            elif kind == _DROPPED:
                nodes.pop(node, None)
        if count > 2 * len(nodes) + _SLACK:
            self._compact(minor, nodes)
        return Names(minor, nodes)

    def named(self, node: int, parent: int, name: bytes) -> None:
        self._write(_RECORD.pack(_NAMED, node, parent, len(name)) + name)

    def unnamed(self, node: int, parent: int, name: bytes) -> None:
        self._write(_RECORD.pack(_UNNAMED, node, parent, len(name)) + name)

    def dropped(self, node: int) -> None:
        self._write(_RECORD.pack(_DROPPED, node, 0, 0))

    def close(self, *, remove: bool) -> None:
        os.close(self._fd)
        if remove:
            self._path.unlink(missing_ok=True)

    def _write(self, record: bytes) -> None:
        os.write(self._fd, record)

    def _compact(self, minor: int, nodes: dict[int, list[tuple[int, bytes]]]) -> None:
        last = last_id(self._path)
        self.begin(minor)
        self.dropped(last)
        for node, names in nodes.items():
            for parent, name in names:
                self.named(node, parent, name)


def last_id(path: Path) -> int:
    """The highest node id that a former process gave out by this file; 0 if there is none.

    The kernel and the peer may still use any id up to it, so that the next one is above.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return 0
    return max((node for _, node, _, _ in _records(data, _HEAD.size)), default=0)


def _records(data: bytes, at: int) -> Iterator[tuple[int, int, int, bytes]]:
    while at + _RECORD.size <= len(data):
        kind, node, parent, length = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        yield kind, node, parent, data[at : at + length]
        at += length
