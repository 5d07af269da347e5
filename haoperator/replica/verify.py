# SPDX-License-Identifier: Apache-2.0
"""The walk that compares both copies while the application writes, and changes nothing.

The rough comparison of a directory is made here and there at different moments, without
a lock, and is conclusive where it says "equal": what nobody touched since is equal then,
and what somebody touched was forwarded, as a result and not as a request. Whatever
differs in it is looked at again exactly (exactly.py); only that makes a difference.

A name that moves during the walk is visited once more at its new place, so that nothing
slips from where the walk was not yet to where it has been. What was made since the walk
began need not be visited. When no directory is left, only names that wait to be visited
are still followed: the walk ends, whatever the application does.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from haoperator.replica import frames
from haoperator.replica.asking import Asker
from haoperator.replica.comparing import alike, compare, same_kind
from haoperator.replica.contents import Contents
from haoperator.replica.difference import Difference, What
from haoperator.replica.directory import Directory
from haoperator.replica.exactly import Exact, Sides
from haoperator.replica.linking import Linking
from haoperator.replica.nodes import Node
from haoperator.replica.outgoing import Outgoing
from haoperator.replica.pace import Pace
from haoperator.replica.seeing import names_in, see_if_there
from haoperator.replica.verification import ENTRY_WEIGHT, Verification

SHARE_NAMES = 4096
"""Names of a directory that are compared at a time, on average."""
MOST_MOVED = 4096
"""Moved names that wait to be visited. More of them are counted as missed."""
MOST_TRIES = 8
"""How often a name is visited that moves again each time meanwhile."""
MOST_SETTLED = 500_000
"""Moved files that are remembered as visited. Others are visited after every move."""
MOVED_A_TURN = 64
"""Moved names that are visited between two directories."""

Key = tuple[int, int]
"""Directory and inode."""


@dataclass(frozen=True, slots=True)
class Work:
    """A name to visit. `parent` is pinned. The root is its own parent, by the name `.`."""

    directory: Directory
    parent: Node
    name: bytes
    tries: int = 0
    """Of a name that was moved: how often it was visited."""
    is_directory: bool = False


class Verify:
    """One walk over all directories, on the stream that is attached now."""

    def __init__(
        self,
        outgoing: Outgoing,
        directories: Iterable[Directory],
        asker: Asker,
        report: Verification,
    ) -> None:
        self._outgoing = outgoing
        self._directories = list(directories)
        self._asker = asker
        self._report = report
        self._exact = Exact(asker)
        self._pace = Pace(outgoing.hot, asker)
        self._linking = {d.index: Linking(d, self._exact) for d in self._directories}
        self._stack: list[Work] = []
        self._moved: dict[Key, Work] = {}
        self._visiting: tuple[Key, int] | None = None
        """Which of those that moved is being visited, and how often it was before."""
        self._settled: set[Key] = set()
        """Moved files that were visited. Whatever has such an inode later was made since."""
        self._moves = threading.Lock()
        """Of `_moved`, `_visiting` and `_closing`. Taken after a namespace mutex."""
        self._visited: set[int] = set()
        self._closing = False

    def run(self) -> None:
        """Raises Stopped, OSError where this side cannot be read."""
        self._outgoing.verification += 1
        self._outgoing.follower = self
        try:
            for directory in self._directories:
                self._weigh(directory)
            for directory in self._directories:
                self._visit_name(Work(directory, directory.nodes.root, b"."))
            self._walk()
        finally:
            self._outgoing.follower = None
            for work in (*self._stack, *self._moved.values()):
                with work.directory.namespace:
                    work.directory.nodes.unpin(work.parent)

    def named(self, directory: Directory, parent: Node, name: bytes) -> None:
        """Something got a new name. Called under the namespace mutex, in any thread."""
        with contextlib.suppress(OSError):
            st = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
            node = directory.nodes.find(st)
            is_directory = stat.S_ISDIR(st.st_mode)
            if node is not None:
                if node.made == self._outgoing.verification:
                    return
                if is_directory and node.id in self._visited:
                    return
            if (directory.index, st.st_ino) in self._settled:
                return
            with self._moves:
                self._follow((directory.index, st.st_ino), directory, parent, name, is_directory)

    def _follow(
        self, key: Key, directory: Directory, parent: Node, name: bytes, is_directory: bool
    ) -> None:
        waits, tries = self._moved.get(key), 0
        if waits is not None:
            tries = waits.tries
        elif self._visiting is not None and self._visiting[0] == key:
            tries = self._visiting[1] + 1
        elif self._closing:
            return
        if tries == MOST_TRIES or (waits is None and len(self._moved) >= MOST_MOVED):
            self._report.missed += 1
            return
        parent.pins += 1
        self._moved[key] = Work(directory, parent, name, tries, is_directory)
        if waits is not None:
            directory.nodes.unpin(waits.parent)

    def _walk(self) -> None:
        while self._stack or self._moved:
            with self._moves:
                unvisited = any(work.is_directory for work in self._moved.values())
                self._closing = not self._stack and not unvisited
            if self._stack:
                self._visit_directory(self._stack.pop())
            for _ in range(min(MOVED_A_TURN, len(self._moved))):
                self._visit_moved()

    def _visit_moved(self) -> None:
        with self._moves:
            key = next(iter(self._moved))
            work = self._moved.pop(key)
            self._visiting = key, work.tries
        try:
            self._visit_name(work)
        finally:
            with work.directory.namespace:
                work.directory.nodes.unpin(work.parent)
            with self._moves:
                self._visiting = None
                stayed = key not in self._moved and not work.is_directory
                if stayed and len(self._settled) < MOST_SETTLED:
                    self._settled.add(key)
        self._pace.rest()

    def _weigh(self, directory: Directory) -> None:
        """How much there is to compare; what cannot be read is found later."""
        ways = [os.fsencode(directory.nodes.root.magic)]
        while ways:
            weight = 0
            with contextlib.suppress(OSError), os.scandir(ways.pop()) as entries:
                for entry in entries:
                    weight += ENTRY_WEIGHT
                    with contextlib.suppress(OSError):
                        if entry.is_dir(follow_symlinks=False):
                            ways.append(entry.path)
                        elif entry.is_file(follow_symlinks=False):
                            weight += entry.stat(follow_symlinks=False).st_size
            self._report.weight += weight
            self._pace.rest()

    def _visit_name(self, work: Work) -> None:
        both = self._exact.names(work.directory, work.parent, [work.name])
        self._judge(work.directory, work.parent, both)

    def _visit_directory(self, work: Work) -> None:
        directory = work.directory
        node = self._enter(work)
        if node is None:
            return
        try:
            if node.id not in self._visited:
                self._visited.add(node.id)
                self._report.directories += 1
                self._compare_directory(directory, node)
        finally:
            with directory.namespace:
                directory.nodes.unpin(node)

    def _enter(self, work: Work) -> Node | None:
        """The directory that the name means now, pinned in the place of its parent."""
        nodes = work.directory.nodes
        with work.directory.namespace:
            node = nodes.root if work.name == b"." else None
            with contextlib.suppress(OSError):
                st = os.stat(work.name, dir_fd=work.parent.fd, follow_symlinks=False)
                if node is None and stat.S_ISDIR(st.st_mode):
                    node, _ = nodes.look(work.parent, work.name)
            if node is not None:
                node.pins += 1
            nodes.unpin(work.parent)
            return node

    def _compare_directory(self, directory: Directory, node: Node) -> None:
        fd = os.open(node.magic, os.O_RDONLY | os.O_DIRECTORY | os.O_NOATIME | os.O_CLOEXEC)
        try:
            shares = sum(1 for _ in names_in(fd, 0, 1)) // SHARE_NAMES + 1
            for share in range(shares):
                self._compare_share(directory, node, fd, share, shares)
        finally:
            os.close(fd)

    def _compare_share(
        self, directory: Directory, node: Node, fd: int, share: int, shares: int
    ) -> None:
        with directory.namespace:
            path = directory.nodes.path(node)
            if path is None:
                return  # removed, and the standby was told
            asked = self._asker.ask(directory, frames.Check(path, share, shares))
        self._asker.send()
        mine = {name: see_if_there(fd, name) for name in names_in(fd, share, shares)}
        theirs = {seen.name: seen for seen in self._asker.seen(asked)}
        both: dict[bytes, Sides] = {
            name: (mine.get(name), theirs.get(name)) for name in sorted(mine.keys() | theirs.keys())
        }
        doubtful = [name for name, sides in both.items() if not alike(*sides)]
        both.update(self._exact.names(directory, node, doubtful))
        self._pace.rest()
        self._judge(directory, node, both)

    def _judge(self, directory: Directory, parent: Node, both: dict[bytes, Sides]) -> None:
        """Note what differs, and go on with contents and directories below."""
        with directory.namespace:
            above = directory.nodes.path(parent)
        if above is None:
            return
        contents = Contents(
            directory, parent, self._asker, self._exact, self._report, self._pace.rest
        )
        try:
            for name, (mine, theirs) in both.items():
                path = (above + b"/" + name if above else name) if name != b"." else b""
                for what, detail in compare(mine, theirs):
                    self._report.found.add(Difference(directory.name, path, what, detail))
                self._report.compared(names=1)
                if mine is None or theirs is None or not same_kind(mine, theirs):
                    continue
                if stat.S_ISDIR(mine.mode):
                    self._push(Work(directory, parent, name))
                    continue
                self._report.files += 1
                known, wrong = self._linking[directory.index].meet(path, mine, theirs)
                if wrong is not None:
                    detail = f"one file with {os.fsdecode(wrong)!r} on one side only"
                    self._report.found.add(Difference(directory.name, path, What.LINKS, detail))
                if stat.S_ISREG(mine.mode) and not known:
                    contents.add(name, path)
                elif stat.S_ISREG(mine.mode):
                    self._report.weighed += mine.size
            contents.finish()
        finally:
            contents.close()

    def _push(self, work: Work) -> None:
        with work.directory.namespace:
            work.parent.pins += 1
        self._stack.append(work)
