# SPDX-License-Identifier: Apache-2.0
"""Hashes of blocks, by which a resync finds what differs, and the threads that make them."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import queue
import threading
from _blake2 import blake2b
from collections.abc import Callable

from haoperator.replica import frames, wire
from haoperator.replica._hotpath import Applier
from haoperator.replica.marks import BLOCK
from haoperator.replica.priority import be_nice

HASH_BYTES = 16
MOST_BLOCKS = 1024
"""Blocks that one HASH frame may ask for."""
THREADS = 2

log = logging.getLogger(__name__)


def block_hash(data: bytes) -> bytes:
    """The hash of one block, which may be short at the end of a file."""
    return blake2b(data, digest_size=HASH_BYTES).digest()


_ZERO_BLOCK = block_hash(bytes(BLOCK))


def _next_data(fd: int, offset: int) -> int:
    """Where the next data begin; a hole reads as zeros without being read."""
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as err:
        if err.errno == errno.ENXIO:  # none up to the end
            return os.fstat(fd).st_size // BLOCK * BLOCK
        return offset


def hash_blocks(fd: int, offset: int, count: int) -> bytes:
    """The hashes of up to `count` blocks; fewer where the file ends."""
    hashes: list[bytes] = []
    data_at = offset
    size = os.fstat(fd).st_size
    for _ in range(count):
        if offset >= size:
            break
        if data_at < offset:
            data_at = _next_data(fd, offset)
        if offset + BLOCK <= data_at and offset + BLOCK <= size:
            hashes.append(_ZERO_BLOCK)
        else:
            data = os.pread(fd, BLOCK, offset)
            if not data:
                break
            hashes.append(block_hash(data))
        offset += BLOCK
        if offset > data_at:
            data_at = offset - 1  # ask again
    return b"".join(hashes)


def forget_clean(fd: int, offset: int, count: int) -> None:
    """Let the next read of some blocks be one of the disk, not of the memory. Raises OSError."""
    os.posix_fadvise(fd, offset, count * BLOCK, os.POSIX_FADV_DONTNEED)


class HashPool:
    """Threads for the standby's slow work, so that it does not hold up the stream.

    A failure of the work is given to `failed`.
    """

    def __init__(self, failed: Callable[[OSError], None], threads: int = THREADS) -> None:
        self._failed = failed
        self._threads = threads
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        for number in range(threads):
            threading.Thread(target=self._serve, name=f"hash/{number}", daemon=True).start()

    def run(self, work: Callable[..., None], *arguments: object) -> None:
        self._work.put(lambda: work(*arguments))

    def hash(self, applier: Applier, fd: int, seq: int, asked: frames.Hash) -> None:
        """Answer one HASH. `fd` is taken over, -1 where there is no file."""

        def work() -> None:
            try:
                hashes = (
                    hash_blocks(fd, asked.offset, min(asked.blocks, MOST_BLOCKS))
                    if fd >= 0
                    else b""
                )
            finally:
                if fd >= 0:
                    os.close(fd)
            frame = frames.Hashes(hashes)
            with contextlib.suppress(OSError):  # the session ended
                applier.post(wire.type_of(frame), seq, 0, wire.payload_of(frame))

        self._work.put(work)

    def close(self) -> None:
        for _ in range(self._threads):
            self._work.put(None)

    def _serve(self) -> None:
        be_nice()
        while (work := self._work.get()) is not None:
            try:
                work()
            except OSError as err:
                self._failed(err)
