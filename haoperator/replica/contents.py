# SPDX-License-Identifier: Apache-2.0
"""Contents of files compared by hash, many at a time: first roughly, then what differed exactly.

The first hashes are made here and there at different moments, and from the disk where it
is idle enough: bytes that nobody touched are equal if their hashes are, and bytes that
somebody touched were forwarded. Only a block that differs then is looked at under locks.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from haoperator.replica import frames
from haoperator.replica.asking import Asker
from haoperator.replica.difference import Difference, What
from haoperator.replica.directory import Directory
from haoperator.replica.exactly import Exact
from haoperator.replica.hashing import HASH_BYTES, forget_clean, hash_blocks
from haoperator.replica.marks import BLOCK
from haoperator.replica.nodes import Node
from haoperator.replica.seeing import open_to_read
from haoperator.replica.verification import Verification

PIECE_BLOCKS = 64
PIECE = PIECE_BLOCKS * BLOCK
BATCH_PIECES = 16
BATCH_BYTES = 2 * PIECE

File = tuple[int, int]
"""A file that has several names, by its inodes on both sides."""


@dataclass(slots=True)
class Opened:
    """A file that is being compared."""

    name: bytes
    path: bytes
    fd: int
    file: File | None
    gone: bool = False
    """It lost its name meanwhile, so that something could not be looked at again."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a file, asked for at the standby. With the last one it is closed."""

    of: Opened
    offset: int
    seq: int
    last: bool


class Contents:
    """The files in one directory, which is pinned."""

    def __init__(
        self,
        directory: Directory,
        parent: Node,
        asker: Asker,
        report: Verification,
        compared: set[File],
        rest: Callable[[], None],
    ) -> None:
        """`compared`: files with several names whose content need not be compared again."""
        self._directory = directory
        self._parent = parent
        self._asker = asker
        self._exact = Exact(asker)
        self._report = report
        self._compared = compared
        self._rest = rest
        self._batch: list[Piece] = []
        self._open: set[int] = set()
        self._asked_bytes = 0

    def add(self, name: bytes, path: bytes, file: File | None) -> None:
        """Compare one more file, now or with the next ones. Raises Stopped."""
        try:
            flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = open_to_read(os.open(name, flags, dir_fd=self._parent.fd))
        except FileNotFoundError:
            return  # gone, and the standby was told
        except OSError as err:
            self._unreadable(path, err)
            return
        self._open.add(fd)
        size = os.fstat(fd).st_size
        if file in self._compared:
            self._report.weighed += size
        if file in self._compared or not size:
            self._close(fd)
            return
        opened = Opened(name, path, fd, file)
        for offset in range(0, size, PIECE):
            asked = frames.Sum(path, offset, PIECE_BLOCKS, 0)
            seq = self._asker.ask(self._directory, asked)
            self._batch.append(Piece(opened, offset, seq, offset + PIECE >= size))
            self._asked_bytes += min(PIECE, size - offset)
            if len(self._batch) == BATCH_PIECES or self._asked_bytes >= BATCH_BYTES:
                self.finish()

    def finish(self) -> None:
        """Compare all that was asked for. Raises Stopped."""
        self._asker.send()
        batch, self._batch = self._batch, []
        for piece in batch:
            try:
                self._compare(piece)
            except OSError as err:
                self._unreadable(piece.of.path, err)
            if piece.last:
                self._close(piece.of.fd)
                if piece.of.file is not None and not piece.of.gone:
                    self._compared.add(piece.of.file)
        self._report.compared(content=self._asked_bytes)
        self._asked_bytes = 0
        self._rest()

    def close(self) -> None:
        """Give back what an interrupted comparison holds. Harmless to repeat."""
        while self._open:
            os.close(self._open.pop())

    def _close(self, fd: int) -> None:
        self._open.discard(fd)
        os.close(fd)

    def _compare(self, piece: Piece) -> None:
        fd = piece.of.fd
        try:
            forget_clean(fd, piece.offset, PIECE_BLOCKS)
            mine = hash_blocks(fd, piece.offset, PIECE_BLOCKS)
        finally:
            theirs = self._asker.hashes(piece.seq)
        for at in range(0, len(mine), HASH_BYTES):
            if mine[at : at + HASH_BYTES] != theirs[at : at + HASH_BYTES]:
                self._look_closer(piece.of, piece.offset + at // HASH_BYTES * BLOCK)

    def _look_closer(self, of: Opened, offset: int) -> None:
        try:
            if not self._exact.block_differs(self._directory, self._parent, of.name, offset, of.fd):
                return
        except FileNotFoundError:
            of.gone = True  # where it moved to it is visited once more
            return
        length = max(0, min(BLOCK, os.fstat(of.fd).st_size - offset))
        self._report.found.add(
            Difference(self._directory.name, of.path, What.CONTENT, "", offset, length)
        )

    def _unreadable(self, path: bytes, err: OSError) -> None:
        reason = err.strerror or str(err)
        self._report.found.add(
            Difference(self._directory.name, path, What.UNREADABLE, f"{reason} here")
        )
