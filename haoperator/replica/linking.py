# SPDX-License-Identifier: Apache-2.0
"""Whether the names that mean one file on one side mean one file on the other."""

from __future__ import annotations

from haoperator.replica.directory import Directory
from haoperator.replica.exactly import Exact
from haoperator.replica.frames import Seen

MOST_FILES = 500_000
"""Files with several names that are remembered. Beyond them it begins to forget all."""

Name = tuple[bytes, int]
"""A path, and the inode that it means on the other side."""


class Linking:
    """The names of one directory tree, as they are met.

    What was met may be stale by now: when it contradicts what is met later, both are
    looked at again, at one place of the stream.
    """

    def __init__(self, directory: Directory, exact: Exact) -> None:
        self._directory = directory
        self._exact = exact
        self._mine: dict[int, Name] = {}
        self._theirs: dict[int, Name] = {}

    def meet(self, path: bytes, mine: Seen, theirs: Seen) -> tuple[bool, bytes | None]:
        """A name that both sides have. Returns whether its file was met by another name, and
        the path that it should mean the same file as on both sides, or on none. Raises Stopped.
        """
        if mine.links < 2 and theirs.links < 2:
            return False, None
        if len(self._mine) > MOST_FILES:
            self._mine.clear()
            self._theirs.clear()
        known, other = self._mine.get(mine.inode), self._theirs.get(theirs.inode)
        wrong = None
        for met, inode in ((known, theirs.inode), (other, mine.inode)):
            if met is not None and met[1] != inode and self._contradict(met[0], path):
                wrong = met[0]
        self._mine[mine.inode] = (path, theirs.inode)
        self._theirs[theirs.inode] = (path, mine.inode)
        return known is not None and known[1] == theirs.inode, wrong

    def _contradict(self, one: bytes, other: bytes) -> bool:
        (one_here, one_there), (other_here, other_there) = self._exact.paths(
            self._directory, one, other
        )
        if one_here is None or one_there is None or other_here is None or other_there is None:
            return False  # gone meanwhile, or a difference of another kind
        return (one_here.inode == other_here.inode) != (one_there.inode == other_there.inode)
