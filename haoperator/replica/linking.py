# SPDX-License-Identifier: Apache-2.0
"""Whether the names that mean one file on one side mean one file on the other."""

from __future__ import annotations

from haoperator.replica.contents import File
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
        self.compared: set[File] = set()
        """Those whose content was compared."""

    def file(self, mine: Seen, theirs: Seen) -> File | None:
        """What is remembered as compared by any one of its names. None: there is only one."""
        return (mine.inode, theirs.inode) if mine.links > 1 or theirs.links > 1 else None

    def meet(self, path: bytes, mine: Seen, theirs: Seen) -> bytes | None:
        """A name that both sides have. Returns a path that means the same file as this one on
        one side only, if there is any. Raises Stopped.
        """
        if self.file(mine, theirs) is None:
            return None
        if len(self._mine) > MOST_FILES:
            for known in (self._mine, self._theirs, self.compared):
                known.clear()
        wrong = None
        met_here, met_there = self._mine.get(mine.inode), self._theirs.get(theirs.inode)
        for met, inode in ((met_here, theirs.inode), (met_there, mine.inode)):
            if met is not None and met[1] != inode and self._contradict(met[0], path):
                wrong = met[0]
        self._mine[mine.inode] = (path, theirs.inode)
        self._theirs[theirs.inode] = (path, mine.inode)
        return wrong

    def _contradict(self, one: bytes, other: bytes) -> bool:
        (one_here, one_there), (other_here, other_there) = self._exact.paths(
            self._directory, one, other
        )
        if one_here is None or one_there is None or other_here is None or other_there is None:
            return False  # gone meanwhile, or a difference of another kind
        return (one_here.inode == other_here.inode) != (one_there.inode == other_there.inode)
