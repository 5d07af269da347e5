# SPDX-License-Identifier: Apache-2.0
"""What both copies are at one place of the stream, while the application writes.

Names and attributes change here only under the namespace mutex, contents and attributes
of a file also under its node lock, and what changes is put on the stream under the same
lock. So what is read here while both are held, and what the standby answers to a question
that was put on the stream meanwhile, are true at the same place: if they differ, the
copies do. The locks are held for a few system calls.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator

from haoperator.replica import frames
from haoperator.replica.asking import Asker
from haoperator.replica.beneath import parent_of
from haoperator.replica.directory import Directory
from haoperator.replica.frames import Seen
from haoperator.replica.hashing import block_hash
from haoperator.replica.marks import BLOCK
from haoperator.replica.nodes import Node
from haoperator.replica.seeing import see

AT_ONCE = 32
"""Questions under way at a time."""

Sides = tuple[Seen | None, Seen | None]
"""What there is on the primary, and on the standby."""


class Exact:
    """Comparisons that no concurrent change can disturb."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    def names(
        self, directory: Directory, parent: Node, names: Iterable[bytes]
    ) -> dict[bytes, Sides]:
        """Both sides of some names in a directory, each for itself; `.` is the root itself.

        `parent` is pinned. Raises Stopped, OSError where this side cannot be read.
        """
        names = list(names)
        both: dict[bytes, Sides] = dict.fromkeys(names, (None, None))
        asked: list[tuple[bytes, Seen | None, int]] = []
        for name in names:
            with contextlib.suppress(FileNotFoundError), directory.namespace:
                path = directory.nodes.child_path(parent, name) if name != b"." else b""
                with self._still(directory, parent.fd, name):
                    mine = _see_mine(parent.fd, name)
                    asked.append((name, mine, self._asker.ask(directory, frames.Look(path))))
            if len(asked) == AT_ONCE:
                self._collect(asked, both)
        self._collect(asked, both)
        return both

    def _collect(
        self, asked: list[tuple[bytes, Seen | None, int]], both: dict[bytes, Sides]
    ) -> None:
        self._asker.send()
        for name, mine, seq in asked:
            both[name] = mine, self._look(seq)
        asked.clear()

    def _look(self, seq: int) -> Seen | None:
        seen = self._asker.seen(seq)
        return seen[0] if seen else None

    def paths(self, directory: Directory, *paths: bytes) -> list[Sides]:
        """Both sides of some paths, all at the same place. Raises Stopped."""
        with directory.namespace:
            asked = [
                (_see_path(directory, path), self._asker.ask(directory, frames.Look(path)))
                for path in paths
            ]
        self._asker.send()
        return [(mine, self._look(seq)) for mine, seq in asked]

    def block_differs(
        self, directory: Directory, parent: Node, name: bytes, offset: int, fd: int
    ) -> bool:
        """Whether a block of a file differs. `fd` is open on it, the parent is pinned.

        Raises Stopped, FileNotFoundError if it has this name no more, OSError.
        """
        with directory.namespace:
            path = directory.nodes.child_path(parent, name)
            st = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
            if not os.path.samestat(st, os.fstat(fd)):
                raise FileNotFoundError(errno.ENOENT, "another file has the name now")
            with self._still(directory, parent.fd, name):
                data = os.pread(fd, BLOCK, offset)
                seq = self._asker.ask(directory, frames.Sum(path, offset, 1, 1))
        self._asker.send()
        theirs = self._asker.hashes(seq)
        return bool(data) and theirs != block_hash(data)

    @contextlib.contextmanager
    def _still(self, directory: Directory, parent: int, name: bytes) -> Iterator[None]:
        """Keep writes to a file away. The namespace mutex is held: nobody else makes a node."""
        node = None
        with contextlib.suppress(OSError):
            st = os.stat(name, dir_fd=parent, follow_symlinks=False)
            node = directory.nodes.find(st) if stat.S_ISREG(st.st_mode) else None
        if node is None:
            yield
            return
        directory.hot.lock(node.id)
        try:
            yield
        finally:
            directory.hot.unlock(node.id)


def _see_mine(parent: int, name: bytes) -> Seen | None:
    with contextlib.suppress(FileNotFoundError):
        return see(parent, name)
    return None


def _see_path(directory: Directory, path: bytes) -> Seen | None:
    if not path:
        return see(directory.root_fd, b".")
    with contextlib.suppress(OSError), parent_of(directory.root_fd, path) as (parent, name):
        return see(parent, name)
    return None
