# SPDX-License-Identifier: Apache-2.0
"""The walk that makes the peer's trees equal to ours while the application writes.

Everything the application changes meanwhile is forwarded as always. The walk adds what
differs: for each directory its listing, for each file what copying.py finds, last its
metadata.

A node is marked as walked once the peer has it, a directory once the peer has its names.
The peer's copy of a walked directory has exactly our names from there on, because the
frames that follow change it just as ours. What is not walked and gets into a walked
directory is put on the list; what gets into another one is found with that one's listing.
A directory is only ever visited from a walked one, so that the peer has it.
"""

from __future__ import annotations

import collections
import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from haoperator.replica import frames, wire
from haoperator.replica.copying import Copier, Progress
from haoperator.replica.courier import Courier
from haoperator.replica.directory import Directory
from haoperator.replica.grouping import Group, Groups
from haoperator.replica.nodes import Node
from haoperator.replica.outgoing import Outgoing


@dataclass(frozen=True, slots=True)
class Work:
    """A name to visit. `parent` is pinned."""

    directory: Directory
    parent: Node
    name: bytes
    listed: int = 0
    """The inode that the peer was told of by this name, 0: none."""


class Resync:
    """One walk over all directories, on the stream that is attached now."""

    def __init__(self, outgoing: Outgoing, directories: Iterable[Directory]) -> None:
        self.courier = Courier(outgoing)
        self._copier = Copier(self.courier)
        self._outgoing = outgoing
        self._epoch = outgoing.epoch
        self._directories = list(directories)
        self.progress = {directory.name: Progress() for directory in self._directories}
        self._work: collections.deque[Work] = collections.deque()
        self._groups = Groups()
        self._begun = False
        outgoing.moved = self.moved

    def moved(self, directory: Directory, parent: Node, name: bytes) -> None:
        """Something got a new name. Called under the namespace mutex, in any thread."""
        with contextlib.suppress(OSError):
            st = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
            node = directory.nodes.find(st)
            one_name = stat.S_ISDIR(st.st_mode) or st.st_nlink == 1
            if node is not None and node.walked == self._epoch and one_name:
                return
            self._add(Work(directory, parent, name))

    @property
    def done(self) -> bool:
        """Nothing is left to visit. Final only while no change is in flight."""
        return not self._work

    def run(self) -> None:
        """Walk until nothing is left. May be called again when `moved` brought more.

        Raises Interrupted.
        """
        if not self._begun:
            self._begun = True
            for directory in self._directories:
                self._estimate(directory)
            for directory in self._directories:
                self._walk_nameless(directory)
                with directory.namespace:
                    self._list(directory, directory.nodes.root, b"")
        while self._work:
            self.courier.check()
            self._visit(self._work.pop())
        self.courier.settle()

    def finish(self) -> None:
        """Give back what the walk held. Harmless to repeat."""
        if self._outgoing.moved == self.moved:
            self._outgoing.moved = lambda *_: None
        while self._work:
            work = self._work.pop()
            with work.directory.namespace:
                work.directory.nodes.unpin(work.parent)
        self._groups.close()

    def _add(self, work: Work) -> None:
        work.parent.pins += 1
        self._work.append(work)

    def _estimate(self, directory: Directory) -> None:
        progress = self.progress[directory.name]

        def add_up(path: bytes) -> None:
            self.courier.check()
            with contextlib.suppress(OSError), os.scandir(path) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        if entry.is_dir(follow_symlinks=False):
                            add_up(entry.path)
                        elif entry.is_file(follow_symlinks=False):
                            progress.total += entry.stat(follow_symlinks=False).st_size

        add_up(os.fsencode(directory.nodes.root.magic))

    def _visit(self, work: Work) -> None:
        """What is decided about one name is decided in one piece, under the mutex."""
        directory = work.directory
        copy = None
        with self._pins(directory) as pins:
            with directory.namespace:
                pins.append(work.parent)  # pinned since it was put on the list
                node = self._look(work)
                if node is None:
                    return
                node.pins += 1
                pins.append(node)
                path = directory.nodes.child_path(work.parent, work.name)
                group = self._groups.find(node)
                if stat.S_ISDIR(node.kind):
                    self._list(directory, node, path)
                elif not node.regular:
                    self._copier.send_meta(directory, node, path)
                elif group is None or not group.whole:
                    copy = node, self._prepare_copy(work, node)
            if copy is not None:
                self._copy(directory, *copy)
        self.courier.settle()

    @contextlib.contextmanager
    def _pins(self, directory: Directory) -> Iterator[list[Node]]:
        pins: list[Node] = []
        try:
            yield pins
        finally:
            with directory.namespace:
                for node in pins:
                    directory.nodes.unpin(node)

    def _look(self, work: Work) -> Node | None:
        """What has the name now, made known to the peer. None: there is nothing to do."""
        if work.parent.walked != self._epoch:
            return None  # the peer may lack it: all in it is visited with its listing
        try:
            node, st = work.directory.nodes.look(work.parent, work.name)
            if st.st_ino != work.listed:
                self._list_one(work, st)
        except OSError:  # gone, and the peer was told
            return None
        return node

    def _list_one(self, work: Work, st: os.stat_result) -> None:
        """Tell the peer of one name without ending a listing: nothing is removed."""
        path = work.directory.nodes.path(work.parent)
        if path is None:
            raise FileNotFoundError
        entry = self._entry(work.directory, work.parent, work.name, st)
        mtime_ns = os.fstat(work.parent.fd).st_mtime_ns
        listing = frames.Listing(path, 0, 0, mtime_ns, wire.pack(wire.ENTRY, entry))
        self.courier.submit(work.directory, 0, listing)

    def _list(self, directory: Directory, node: Node, path: bytes) -> None:
        """One directory: metadata, names, and what is in it goes on the list.

        Under the namespace mutex, all of it: a listing is true at one place of the stream.
        """
        self._copier.send_meta(directory, node, path)
        found: list[tuple[bytes, os.stat_result]] = []
        for name in os.listdir(os.fsencode(node.magic)):
            with contextlib.suppress(FileNotFoundError):
                found.append((name, os.stat(name, dir_fd=node.fd, follow_symlinks=False)))
        mtime_ns = os.fstat(node.fd).st_mtime_ns
        for at in range(0, max(len(found), 1), frames.LISTING_PART):
            part = found[at : at + frames.LISTING_PART]
            entries = b"".join(
                wire.pack(wire.ENTRY, self._entry(directory, node, name, st)) for name, st in part
            )
            last = int(at + frames.LISTING_PART >= len(found))
            number = at // frames.LISTING_PART
            listing = frames.Listing(path, number, last, mtime_ns, entries)
            self.courier.submit(directory, 0, listing)
        node.walked = self._epoch
        for name, st in reversed(found):
            self._add(Work(directory, node, name, st.st_ino))

    def _entry(
        self, directory: Directory, parent: Node, name: bytes, st: os.stat_result
    ) -> frames.Entry:
        target = b""
        if stat.S_ISLNK(st.st_mode):
            target = os.readlink(name, dir_fd=parent.fd)
        is_directory = stat.S_ISDIR(st.st_mode)
        group = 0 if is_directory else self._groups.tell(directory, parent, name, st)
        return frames.Entry(name, st.st_mode, st.st_rdev, group, target)

    def _prepare_copy(self, work: Work, node: Node) -> Group | None:
        """Make the peer know a file by its id, whatever it meant by that before."""
        directory = work.directory
        if os.fstat(node.fd).st_nlink > 1:
            self._unite(directory, node)
        # By the name that is visited: the peer has it, others perhaps not yet.
        directory.nodes.prefer_name(node, work.parent, work.name)
        self._outgoing.bind(directory, node, again=True)
        return self._groups.find(node)

    def _copy(self, directory: Directory, node: Node, group: Group | None) -> None:
        """One regular file: what differs of its content, then its metadata."""
        self._copier.copy(directory, node, self.progress[directory.name])
        with directory.namespace, self._copier.order(node):
            path = directory.nodes.path(node)
            if path is not None:
                self._copier.send_meta(directory, node, path)
            node.walked = self._epoch
            if group is not None:
                group.whole = True

    def _unite(self, directory: Directory, node: Node) -> None:
        """Make all names of an inode that are known here names of one inode there.

        While it had one name, or was not copied yet, they may have come apart: a link
        that was made to a file whose place a listing then gave to another.
        """
        for parent_id, name in node.names:
            with contextlib.suppress(OSError):
                parent = directory.nodes.get(parent_id)
                if parent.walked != self._epoch:
                    continue  # united when it is listed
                st = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
                self._list_one(Work(directory, parent, name), st)

    def _walk_nameless(self, directory: Directory) -> None:
        """Files from O_TMPFILE that are open and may yet get a name."""
        with directory.namespace:
            nameless = [node for node in directory.nodes if node.nameless and node.opens]
            for node in nameless:
                st = os.fstat(node.fd)
                frame = frames.Tmpfile(b"", st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns)
                self.courier.submit(directory, node.id, frame)
                self._outgoing.bound(node)
                node.pins += 1
        for node in nameless:
            self._copier.copy(directory, node, self.progress[directory.name])
            with directory.namespace:
                directory.nodes.unpin(node)
