# SPDX-License-Identifier: Apache-2.0
"""The walk that compares both copies while the application writes, and changes nothing.

The rough comparison of a directory is made here and there at different moments, without
a lock, and is conclusive where it says "equal": what nobody touched since is equal then,
and what somebody touched was forwarded, as a result and not as a request. Whatever
differs in it is looked at again exactly (exactly.py); only that makes a difference.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable

from haoperator.replica import frames
from haoperator.replica.asking import Asker
from haoperator.replica.comparing import alike, compare, same_kind
from haoperator.replica.contents import Contents
from haoperator.replica.difference import Difference, What
from haoperator.replica.directory import Directory
from haoperator.replica.exactly import Exact, Sides
from haoperator.replica.linking import Linking
from haoperator.replica.moves import Moves, Work
from haoperator.replica.nodes import Node
from haoperator.replica.outgoing import Outgoing
from haoperator.replica.pacing import Pace
from haoperator.replica.seeing import names_in, see_if_there
from haoperator.replica.verification import ENTRY_WEIGHT, Verification

SHARE_NAMES = 4096
"""Names of a directory that are compared at a time, on average."""
REST_SHARES = (3.0, 4.0)
"""Beside an application, a quarter to a fifth of the time is spent on comparing. It is to come
to an end, too, where the application would rather have all of the time."""
MOVED_A_TURN = 64
"""Moved names that are visited between two directories."""


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
        self._pace = Pace(outgoing.hot, shares=REST_SHARES)
        self._linking = {d.index: Linking(d, self._exact) for d in self._directories}
        self._stack: list[Work] = []
        self._moves = Moves(report)
        self._visited: set[int] = set()
        """Directories, by node ids."""

    def run(self) -> None:
        """Raises Stopped, OSError where this side cannot be read."""
        self._outgoing.verification += 1
        self._outgoing.follower = self
        try:
            for directory in self._directories:
                self._weigh(directory)
            for directory in self._directories:
                self._visit_names(directory, directory.nodes.root, [b"."])
            self._walk()
        finally:
            self._outgoing.follower = None
            for directory in self._directories:
                with directory.namespace:  # whoever tells of a move is through with it
                    pass
            for work in (*self._stack, *self._moves):
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
            self._moves.follow(Work(directory, parent, name, st.st_ino, is_directory))

    def _walk(self) -> None:
        while self._stack or self._moves:
            self._moves.close_unless(bool(self._stack))
            if self._stack:
                self._visit_directory(self._stack.pop())
            with self._moves.some(MOVED_A_TURN) as moved:
                self._visit_moved(moved)

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
            self._rest()

    def _rest(self) -> None:
        """After a piece of work, which takes some ten milliseconds. Raises Stopped."""
        self._pace.rest()
        self._asker.check()

    def _visit_moved(self, moved: Iterable[Work]) -> None:
        """Those in one directory together."""
        by_parent: dict[int, list[Work]] = {}
        for work in moved:
            by_parent.setdefault(work.parent.id, []).append(work)
        for works in by_parent.values():
            one = works[0]
            self._visit_names(one.directory, one.parent, [work.name for work in works])

    def _visit_names(self, directory: Directory, parent: Node, names: list[bytes]) -> None:
        self._judge(directory, parent, self._exact.names(directory, parent, names))

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
        self._rest()
        self._judge(directory, node, both)

    def _judge(self, directory: Directory, parent: Node, both: dict[bytes, Sides]) -> None:
        """Note what differs, and go on with contents and directories below."""
        with directory.namespace:
            above = directory.nodes.path(parent)
        if above is None:
            return
        linking = self._linking[directory.index]
        contents = Contents(
            directory, parent, self._asker, self._report, linking.compared, self._rest
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
                wrong = linking.meet(path, mine, theirs)
                if wrong is not None:
                    detail = f"one file with {os.fsdecode(wrong)!r} on one side only"
                    self._report.found.add(Difference(directory.name, path, What.LINKS, detail))
                if stat.S_ISREG(mine.mode):
                    contents.add(name, path, linking.file(mine, theirs))
            contents.finish()
        finally:
            contents.close()

    def _push(self, work: Work) -> None:
        with work.directory.namespace:
            work.parent.pins += 1
        self._stack.append(work)
