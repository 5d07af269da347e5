# SPDX-License-Identifier: Apache-2.0
"""The table of requests in flight (inflight.h), from one process to the next.

It lies in a memfd that systemd keeps. A process goes on with the table of its
predecessor. One with another layout it cannot go on with: whoever waits there gets EIO,
so that nobody waits for ever.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import struct
from collections.abc import Iterator, Mapping
from typing import Protocol

from haoperator.replica._hotpath import HotPath
from haoperator.replica.abi import RESENT

VERSION = 1
"""TABLE_VERSION of inflight.h."""
PREFIX = "inflight-"
"""Of the name in the descriptor store; the version of the layout follows."""
NAME = f"{PREFIX}{VERSION}"
MOST_BYTES = 64 * 1024 * 1024
"""Of the entries of another version: more is rubbish."""

_MAGIC = b"HAFLIGHT"
_HEAD = struct.Struct("<8sIIIIQQQ")
"""Magic, version, entry size, entries, buffers, where they begin, the room of a buffer."""
_ENTRY = struct.Struct("<IIQIIQ")
"""State, buffer, directory; of the request: length, opcode, `unique`."""
_REQUEST = struct.Struct("<IIQ")
_NONE, _READING = 0, 1

log = logging.getLogger(__name__)


class Store(Protocol):
    """Where descriptors outlive the process (fdstore)."""

    def keep_table(self, name: str, descriptor: int) -> None: ...
    def drop_table(self, name: str) -> None: ...


def identity(directory: str) -> int:
    """How the table names a directory, by its name in the configuration."""
    return int.from_bytes(hashlib.blake2b(directory.encode(), digest_size=8).digest(), "little")


class Requests:
    """The table of this process, and what its predecessor left.

    `take_up` comes first, `adopt` for each directory that is served on, then `settle`.
    """

    def __init__(self, hot: HotPath) -> None:
        self._hot = hot
        self._void: list[str] = []
        self._refused: dict[int, list[int]] = {}

    def take_up(self, kept: Mapping[str, int], store: Store) -> None:
        """Use the table among the kept ones (name → descriptor), or make and keep a new one.

        The descriptors are taken over. Nothing is served yet.
        """
        self._store = store
        taken = False
        for name, descriptor in kept.items():
            if name == NAME and self._hot.keep_requests(descriptor):
                taken = True
            else:
                self._refuse(name, descriptor)
            os.close(descriptor)
        if taken:
            return
        if NAME in kept:  # damaged: two of one name could not be told apart
            store.drop_table(NAME)
        descriptor = os.memfd_create(NAME, os.MFD_CLOEXEC)
        if not self._hot.keep_requests(descriptor):
            raise MemoryError("no room for the table of requests in flight")
        store.keep_table(NAME, descriptor)
        os.close(descriptor)

    def _refuse(self, name: str, descriptor: int) -> None:
        log.error("%s is of another version: requests in flight will fail", name)
        if name != NAME:
            self._void.append(name)
        for directory, unique in left_in(descriptor):
            self._refused.setdefault(directory, []).append(unique)

    def adopt(self, directory: str, fuse_fd: int) -> None:
        """What waits for an answer in this directory can be taken by `next_left` now."""
        for unique in self._refused.pop(identity(directory), ()):
            self._hot.answer(fuse_fd, unique, errno.EIO, b"")
        count = self._hot.adopt(fuse_fd, identity(directory))
        if count:
            log.info("%s: %d requests of the former process are taken up", directory, count)

    def settle(self) -> None:
        """All that was kept is adopted; the rest belongs to what is not mounted any more."""
        self._hot.drop_left()
        self._refused.clear()
        for name in self._void:
            self._store.drop_table(name)
        self._void.clear()


def left_in(descriptor: int) -> Iterator[tuple[int, int]]:
    """(directory, `unique`) of what was in flight, whatever the version of the table."""
    head = os.pread(descriptor, _HEAD.size, 0)
    if len(head) < _HEAD.size or not head.startswith(_MAGIC):
        return
    _, _, entry_size, entries, buffers, entries_at, buffers_at, room = _HEAD.unpack(head)
    if entry_size < _ENTRY.size or entry_size * entries > MOST_BYTES:
        return
    table = os.pread(descriptor, entry_size * entries, entries_at)
    for at in range(0, len(table) - _ENTRY.size + 1, entry_size):
        state, buffer, directory, _, _, unique = _ENTRY.unpack_from(table, at)
        if state == _NONE:
            continue
        if state == _READING:  # what is known of it lies in the buffer
            if buffer >= buffers:
                continue
            request = os.pread(descriptor, _REQUEST.size, buffers_at + buffer * room)
            unique = _REQUEST.unpack(request)[2]
        if unique:
            yield directory, unique & ~RESENT
