# SPDX-License-Identifier: Apache-2.0
"""The write-intent log: marks on disk before what they name is changed.

One file, preallocated and filled with zeros, so that an append overwrites in place and
reaches the disk by one write with RWF_DSYNC: no journal of the file system has to be
committed for it, nor data of others written. It is replaced as a whole when marks are
retired, and grows when it is full.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from haoperator.replica import marks
from haoperator.replica.marks import Broken, Mark

MAGIC = b"HAINTENT1\n\0\0\0\0\0\0"
ROOM = 1024 * 1024


class IntentLog:
    """The marks of this node. What `append` and `replace` were given is on disk when they return.

    `trusted` is false where there was no file, or one that cannot be understood: then
    nothing is known of what differs from the peer.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._kept: list[Mark] = []
        self.trusted = False
        path.with_name(path.name + ".new").unlink(missing_ok=True)  # of an interrupted `replace`
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            pass
        else:
            self._understand(data)
        self._fd, self._room = -1, 0
        self._end = 0
        self.replace(self._kept)

    def _understand(self, data: bytes) -> None:
        try:
            if data[: len(MAGIC)] != MAGIC:
                raise Broken("not an intent log")
            self._kept = list(marks.unpack(data[len(MAGIC) :]))
        except Broken:
            return
        self.trusted = True

    @property
    def marks(self) -> list[Mark]:
        """All that is in it now."""
        with self._lock:
            return list(self._kept)

    @property
    def size(self) -> int:
        """In bytes, of what is in it."""
        return self._end

    def append(self, more: Sequence[Mark]) -> None:
        """Raises OSError: then what they name must not be changed."""
        data = marks.pack(more)
        with self._lock:
            if self._end + len(data) > self._room:
                self._replace([*self._kept, *more])
                return
            _write_through(self._fd, data, self._end)
            self._end += len(data)
            self._kept.extend(more)

    def replace(self, all_of_them: Iterable[Mark]) -> None:
        """From here on only these. Raises OSError: then the former ones are still there."""
        with self._lock:
            self._replace(list(all_of_them))

    def _replace(self, kept: list[Mark]) -> None:
        data = MAGIC + marks.pack(kept)
        room = ROOM
        while room < 2 * len(data):
            room *= 2
        temporary = self._path.with_name(self._path.name + ".new")
        fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write_all(fd, data + bytes(room - len(data)))
            os.fsync(fd)
            os.replace(temporary, self._path)
            directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError:
            os.close(fd)
            raise
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._room, self._end, self._kept = fd, room, len(data), kept


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _write_through(fd: int, data: bytes, place: int) -> None:
    """Returns when it is on disk, the flush of the disk's own cache included."""
    while data:
        written = os.pwritev(fd, [data], place, os.RWF_DSYNC)
        data, place = data[written:], place + written
