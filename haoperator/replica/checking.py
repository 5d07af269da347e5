# SPDX-License-Identifier: Apache-2.0
"""The standby answers what a verification asks, and changes nothing.

CHECK and most SUMs are answered beside the stream, by a thread of their own: neither the
application's writes nor its fsyncs wait for them. LOOK and a SUM that says `now` are
answered at their place in the stream: every change before it is here, none behind it.
What cannot be read is answered as if it were not there, and is a difference.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable

from haoperator.replica import frames, wire
from haoperator.replica._hotpath import Applier
from haoperator.replica.beneath import open_beneath, parent_of
from haoperator.replica.hashing import MOST_BLOCKS, HashPool, forget_clean, hash_blocks
from haoperator.replica.seeing import names_in, open_to_read, see_if_there

MOST_OFFSET = 1 << 62
PART_ENTRIES = 256
"""Entries in one CHECKED at most. One is shorter than 5 KiB, a name and a target included."""

log = logging.getLogger(__name__)


def _not_answered(err: OSError) -> None:
    """Nothing is out of date here because of that: the primary stops waiting by itself."""
    log.error("a question of the verification was not answered: %s", err)


class Checker:
    """Answers on the stream of one session."""

    def __init__(self, applier: Applier) -> None:
        self._applier = applier
        self._beside: HashPool | None = None

    def check(self, root: int, seq: int, asked: frames.Check) -> None:
        """Answer a CHECK beside the stream."""
        fd = -1
        with contextlib.suppress(OSError):
            fd = open_beneath(root, asked.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOATIME)
        self._run(self._list, fd, seq, asked)

    def look(self, root: int, seq: int, asked: frames.Look) -> None:
        """Answer a LOOK now."""
        seen = None
        if not asked.path:
            seen = see_if_there(root, b".")
        else:
            with contextlib.suppress(OSError), parent_of(root, asked.path) as (parent, name):
                seen = see_if_there(parent, name)
        self._post(seq, frames.Checked(1, wire.pack(wire.SEEN, seen) if seen else b""))

    def sum(self, root: int, seq: int, asked: frames.Sum) -> None:
        """Answer a SUM, now or beside the stream. Raises Rubbish."""
        if asked.offset > MOST_OFFSET:
            raise wire.Rubbish("an offset that no file has")
        fd = -1
        with contextlib.suppress(OSError):
            fd = open_to_read(open_beneath(root, asked.path, os.O_PATH | os.O_NOFOLLOW))
        if asked.now:
            self._hash(fd, seq, asked)
        else:
            self._run(self._hash, fd, seq, asked)

    def close(self) -> None:
        if self._beside is not None:
            self._beside.close()

    def _run(self, work: Callable[..., None], *arguments: object) -> None:
        if self._beside is None:
            self._beside = HashPool(_not_answered, threads=1)
        self._beside.run(work, *arguments)

    def _hash(self, fd: int, seq: int, asked: frames.Sum) -> None:
        hashes = b""
        if fd >= 0:
            try:
                blocks = min(asked.blocks, MOST_BLOCKS)
                with contextlib.suppress(OSError):
                    if not asked.now:
                        forget_clean(fd, asked.offset, blocks)
                    hashes = hash_blocks(fd, asked.offset, blocks)
            finally:
                os.close(fd)
        self._post(seq, frames.Hashes(hashes))

    def _list(self, fd: int, seq: int, asked: frames.Check) -> None:
        part: list[bytes] = []
        if fd >= 0:
            try:
                with contextlib.suppress(OSError):
                    for name in names_in(fd, asked.share, asked.shares):
                        seen = see_if_there(fd, name)
                        if seen is not None:
                            part.append(wire.pack(wire.SEEN, seen))
                        if len(part) == PART_ENTRIES:
                            self._post(seq, frames.Checked(0, b"".join(part)))
                            part.clear()
            finally:
                os.close(fd)
        self._post(seq, frames.Checked(1, b"".join(part)))

    def _post(self, seq: int, frame: frames.FromPeer) -> None:
        with contextlib.suppress(OSError):  # the session ended
            self._applier.post(wire.type_of(frame), seq, 0, wire.payload_of(frame))
