# SPDX-License-Identifier: Apache-2.0
"""Makes the peer's trees equal to ours while the application writes.

Everything the application changes meanwhile is forwarded as always. On top of it the walk
visits places, a place being a directory and a name in it: those that the trackers noted as
perhaps different, or, if nothing is known of the peer's copy, the topmost ones and so all
that is below. A visit sends what differs: that something is not there, a directory's
listing, of a file what copying.py finds, last the metadata.

A place that is *pending* may differ; so may everything below a directory whose place is
pending to be visited wholly. All else is equal, and stays so, because the frames that
follow change it there just as here. What moves takes its pending visit along.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from haoperator.replica import frames, wire
from haoperator.replica.copying import Copier, Progress
from haoperator.replica.courier import Courier
from haoperator.replica.directory import Directory
from haoperator.replica.grouping import Group, Groups
from haoperator.replica.marks import ZONE, Range
from haoperator.replica.nodes import Node
from haoperator.replica.outgoing import Outgoing, Place
from haoperator.replica.touched import ROOT, Touched

Key = tuple[int, int, bytes]
"""The directory's index, the node id of the parent, the name."""


class Visit(Enum):
    NOTED = "noted"
    """What the tracker noted of this name."""
    NAMES = "names"
    """A directory: all its names, as if each was noted."""
    WHOLLY = "wholly"
    """All of it, and all below."""


@dataclass(frozen=True, slots=True)
class Work:
    """A place to visit. `parent` is pinned; None is for the replicated directory itself."""

    directory: Directory
    parent: Node | None
    name: bytes
    visit: Visit
    listed: int = 0
    """The inode that the peer was told of by this name, 0: none."""

    @property
    def key(self) -> Key:
        above = ROOT[0] if self.parent is None else self.parent.id
        return self.directory.index, above, self.name


class Resync:
    """One walk over all directories, on the stream that is attached now."""

    def __init__(
        self,
        outgoing: Outgoing,
        directories: Iterable[Directory],
        *,
        partial: bool,
        rate: int,
    ) -> None:
        self.courier = Courier(outgoing, rate)
        self.partial = partial
        self._copier = Copier(self.courier)
        self._outgoing = outgoing
        self._directories = list(directories)
        self.progress = {directory.name: Progress() for directory in self._directories}
        self._pending: dict[Key, Work] = {}
        self._next: collections.deque[Work] = collections.deque()
        """The pending ones in the order of their visits, and some that are pending no more."""
        self._groups = Groups()
        self._begun = False
        outgoing.walk = self

    # Called under the namespace mutex, in any thread, after a change and before its frame.

    def moved(self, directory: Directory, old: Place, new: Place, *, exchange: bool) -> None:
        """A rename: what was pending at one place is pending at the other."""
        at_old, at_new = self._take(directory, old), self._take(directory, new)
        if at_old is not None:
            self._add(Work(directory, *new, at_old))
        if exchange and at_new is not None:
            self._add(Work(directory, *old, at_new))

    def _take(self, directory: Directory, place: Place) -> Visit | None:
        """What is pending there, and is not any more."""
        parent, name = place
        work = self._pending.get((directory.index, parent.id, name))
        visit = None if work is None else work.visit
        if work is not None:
            self._remove(work)
        return Visit.WHOLLY if self._is_below_pending(directory, parent) else visit

    def linked(self, directory: Directory, source: Node, new: Place) -> None:
        """A further name: the peer makes it, too, if it has the file by its path."""
        above, name = source.names[0]
        parent, new_name = new
        if (above, name) != (parent.id, new_name):
            pending = (directory.index, above, name) in self._pending
            if not pending and not self._is_below_pending(directory, directory.nodes.get(above)):
                self._take(directory, new)
                return
        self._add(Work(directory, parent, new_name, Visit.NOTED))

    def _is_below_pending(self, directory: Directory, node: Node) -> bool:
        """Whether `node` or a directory above it is pending to be visited wholly."""
        while True:
            above, name = node.names[0] if node.names else ROOT
            work = self._pending.get((directory.index, above, name))
            if work is not None and work.visit is Visit.WHOLLY:
                return True
            if not node.names:
                return False
            node = directory.nodes.get(above)

    @property
    def done(self) -> bool:
        """Nothing is left to visit. Final only while no change is in flight."""
        return not self._pending

    def run(self) -> None:
        """Visit until nothing is left. May be called again when `moved` brought more.

        Raises Interrupted.
        """
        if not self._begun:
            self._begun = True
            for directory in self._directories:
                if self.partial:
                    self._begin_noted(directory)
                else:
                    self._begin_whole(directory)
            for directory in self._directories:
                self._walk_nameless(directory)
        while self._next:
            self.courier.check()
            self._visit(self._next.popleft())
        self.courier.settle()

    def _begin_whole(self, directory: Directory) -> None:
        with directory.namespace:
            self._add(Work(directory, None, b"", Visit.WHOLLY))
        self._estimate(directory)

    def _begin_noted(self, directory: Directory) -> None:
        """What the tracker noted, the directories above first, and before it the hints."""
        with directory.namespace:
            changes = directory.tracker.changes
            if changes is None:
                return
            if changes.everything:
                self._add(Work(directory, None, b"", Visit.WHOLLY))
            for kind, old, new, flags in changes.hints:
                self.courier.submit(directory, 0, frames.Hint(kind, old, new, flags))
            for work in sorted(self._noted(directory, changes), key=self._depth):
                if not self._gone(work):
                    self._add(work, last=True)
                    self.progress[directory.name].total += self._size(work)

    def _noted(self, directory: Directory, changes: Touched) -> Iterator[Work]:
        for (above, name), new in changes.entries.items():
            parent = None if (above, name) == ROOT else changes.node(above)
            visit = Visit.WHOLLY if new else Visit.NOTED
            yield Work(directory, parent, name, visit)
        for listed in changes.lists:
            node = changes.node(listed)
            if node is directory.nodes.root:
                yield Work(directory, None, b"", Visit.NAMES)
            elif node is not None and node.names:
                above, name = node.names[0]
                yield Work(directory, directory.nodes.get(above), name, Visit.NAMES)

    @staticmethod
    def _depth(work: Work) -> tuple[int, bytes]:
        """Directories come before what is in them, and all of one directory together."""
        if work.parent is None:
            return -1, b""
        path = work.directory.nodes.path(work.parent) or b""
        return path.count(b"/") + (path != b""), path

    def _gone(self, work: Work) -> bool:
        """Tell the peer at once of a name that is there no more."""
        if work.parent is None:
            return False
        try:
            os.stat(work.name, dir_fd=work.parent.fd, follow_symlinks=False)
        except OSError:
            self._send_gone(work.directory, work.parent, work.name)
            return True
        return False

    def _send_gone(self, directory: Directory, parent: Node, name: bytes) -> None:
        path = directory.nodes.path(parent)
        if path is not None:
            path = path + b"/" + name if path else name
            mtime_ns = os.fstat(parent.fd).st_mtime_ns
            self.courier.submit(directory, 0, frames.Remove(path, 0, mtime_ns))

    @staticmethod
    def _size(work: Work) -> int:
        """An estimate, in bytes, of what is to be compared."""
        if work.parent is None:
            return 0
        with contextlib.suppress(OSError):
            st = os.stat(work.name, dir_fd=work.parent.fd, follow_symlinks=False)
            if stat.S_ISREG(st.st_mode):
                return st.st_size if work.visit is Visit.WHOLLY else min(st.st_size, ZONE)
        return 0

    def tell_progress(self) -> None:
        """To the peer, for whoever asks there. Callable in any thread."""
        for directory in self._directories:
            progress = self.progress[directory.name]
            told = frames.Progress(progress.total, progress.compared, progress.copied)
            self.courier.tell(directory, told)

    def finish(self) -> None:
        """Give back what the walk held. Harmless to repeat."""
        if self._outgoing.walk is self:
            self._outgoing.walk = None
        for work in list(self._pending.values()):
            with work.directory.namespace:
                self._remove(work)
        self._groups.close()

    def _add(self, work: Work, *, last: bool = False) -> None:
        """What is pending there already becomes no less."""
        there = self._pending.get(work.key)
        if there is not None:
            if there.visit is Visit.WHOLLY or work.visit is Visit.NOTED:
                return
            self._remove(there)
        if work.parent is not None:
            work.parent.pins += 1
        self._pending[work.key] = work
        if last:
            self._next.append(work)
        else:
            self._next.appendleft(work)

    def _remove(self, work: Work) -> None:
        if self._pending.get(work.key) is work:
            del self._pending[work.key]
            if work.parent is not None:
                work.directory.nodes.unpin(work.parent)

    def _estimate(self, directory: Directory) -> None:
        progress = self.progress[directory.name]
        left = [os.fsencode(directory.nodes.root.magic)]
        while left:
            self.courier.check()
            with contextlib.suppress(OSError), os.scandir(left.pop()) as entries:
                for entry in entries:
                    with contextlib.suppress(OSError):
                        if entry.is_dir(follow_symlinks=False):
                            left.append(entry.path)
                        elif entry.is_file(follow_symlinks=False):
                            progress.total += entry.stat(follow_symlinks=False).st_size

    def _visit(self, work: Work) -> None:
        """What is decided about one name is decided in one piece, under the mutex."""
        directory = work.directory
        copy = None
        with self._pins(directory) as pins:
            with directory.namespace:
                if self._pending.get(work.key) is not work:
                    return
                if work.parent is not None:
                    work.parent.pins += 1
                    pins.append(work.parent)
                self._remove(work)
                if work.parent is not None and self._is_below_pending(directory, work.parent):
                    return  # the peer may lack it: all in there is visited with its listing
                node = self._look(work)
                if node is None:
                    return
                node.pins += 1
                pins.append(node)
                copy = self._visit_node(work, node)
            if copy is not None:
                self._copy(directory, node, *copy)
        self.courier.settle()

    def _visit_node(self, work: Work, node: Node) -> tuple[Group | None, list[Range] | None] | None:
        """What has the name now. Returns how its content is to be copied, if it is."""
        directory = work.directory
        path = directory.nodes.path(node) if work.parent is None else None
        if path is None:
            assert work.parent is not None
            path = directory.nodes.child_path(work.parent, work.name)
        if stat.S_ISDIR(node.kind):
            if self._visit_of(work) is Visit.NOTED:
                self._copier.send_meta(directory, node, path)
            else:
                self._list(directory, node, path, self._visit_of(work))
            return None
        group = self._groups.find(node)
        if not node.regular:
            self._copier.send_meta(directory, node, path)
            return None
        if group is not None and group.whole:
            return None
        assert work.parent is not None
        if os.fstat(node.fd).st_nlink > 1:
            self._unite(directory, node)
        # By the name that is visited: the peer has it, others perhaps not yet.
        directory.nodes.prefer_name(node, work.parent, work.name)
        self._outgoing.bind(directory, node, again=True)
        return self._groups.find(node), self._ranges(work, node)

    def _visit_of(self, work: Work) -> Visit:
        """A name that something else got meanwhile is visited wholly."""
        new = work.parent is not None and self._is_new(work.directory, work.parent, work.name)
        return Visit.WHOLLY if new else work.visit

    def _is_new(self, directory: Directory, parent: Node, name: bytes) -> bool:
        return directory.tracker.is_new(parent, name)

    def _ranges(self, work: Work, node: Node) -> list[Range] | None:
        """The blocks to compare, None: all."""
        if self._visit_of(work) is Visit.WHOLLY:
            return None
        return work.directory.tracker.ranges(node)

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
        if work.parent is None:
            return work.directory.nodes.root
        try:
            node, st = work.directory.nodes.look(work.parent, work.name)
        except OSError as err:  # gone: of a name that was noted, the peer may not have been told
            if err.errno != errno.EXDEV:  # another file system's: nobody sees it through us
                self._send_gone(work.directory, work.parent, work.name)
            return None
        if st.st_ino != work.listed:
            self._list_one(work, st)
        return node

    def _list_one(self, work: Work, st: os.stat_result) -> None:
        """Tell the peer of one name without ending a listing: nothing is removed."""
        assert work.parent is not None
        path = work.directory.nodes.path(work.parent)
        if path is None:
            return  # its directory was removed
        entry = self._entry(work, st)
        mtime_ns = os.fstat(work.parent.fd).st_mtime_ns
        listing = frames.Listing(path, 0, 0, mtime_ns, wire.pack(wire.ENTRY, entry))
        self.courier.submit(work.directory, 0, listing)

    def _list(self, directory: Directory, node: Node, path: bytes, visit: Visit) -> None:
        """One directory: metadata, names, and what is in it is pending.

        Under the namespace mutex, all of it: a listing is true at one place of the stream.
        """
        self._copier.send_meta(directory, node, path)
        below = Visit.WHOLLY if visit is Visit.WHOLLY else Visit.NOTED
        found: list[tuple[Work, os.stat_result]] = []
        for name in os.listdir(os.fsencode(node.magic)):
            with contextlib.suppress(FileNotFoundError):
                st = os.stat(name, dir_fd=node.fd, follow_symlinks=False)
                found.append((Work(directory, node, name, below, st.st_ino), st))
        mtime_ns = os.fstat(node.fd).st_mtime_ns
        for at in range(0, max(len(found), 1), frames.LISTING_PART):
            part = found[at : at + frames.LISTING_PART]
            entries = b"".join(wire.pack(wire.ENTRY, self._entry(*one)) for one in part)
            last = int(at + frames.LISTING_PART >= len(found))
            number = at // frames.LISTING_PART
            listing = frames.Listing(path, number, last, mtime_ns, entries)
            self.courier.submit(directory, 0, listing)
        for work, _ in reversed(found):
            self._add(work)

    def _entry(self, work: Work, st: os.stat_result) -> frames.Entry:
        directory, parent, name = work.directory, work.parent, work.name
        assert parent is not None
        target = b""
        if stat.S_ISLNK(st.st_mode):
            target = os.readlink(name, dir_fd=parent.fd)
        is_directory = stat.S_ISDIR(st.st_mode)
        group = 0 if is_directory else self._groups.tell(directory, parent, name, st)
        partly = is_directory or (stat.S_ISREG(st.st_mode) and st.st_size > ZONE)
        known = int(partly and self._visit_of(work) is not Visit.WHOLLY)
        return frames.Entry(name, st.st_mode, known, st.st_rdev, group, target)

    def _copy(
        self, directory: Directory, node: Node, group: Group | None, ranges: list[Range] | None
    ) -> None:
        """One regular file: what differs of its content, then its metadata."""
        self._copier.copy(directory, node, self.progress[directory.name], ranges)
        with directory.namespace, self._copier.order(node):
            path = directory.nodes.path(node)
            if path is not None:
                self._copier.send_meta(directory, node, path)
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
                if self._is_below_pending(directory, parent):
                    continue  # united when it is listed
                st = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
                self._list_one(Work(directory, parent, name, Visit.NOTED), st)

    def _walk_nameless(self, directory: Directory) -> None:
        """Files from O_TMPFILE that are open and may yet get a name."""
        with directory.namespace:
            nameless = [
                node for node in directory.nodes if node.nameless and node.opens and not node.former
            ]
            for node in nameless:
                st = os.fstat(node.fd)
                frame = frames.Tmpfile(b"", st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns)
                self.courier.submit(directory, node.id, frame)
                self._outgoing.bound(node)
                node.pins += 1
        for node in nameless:
            self._copier.copy(directory, node, self.progress[directory.name], None)
            with directory.namespace:
                directory.nodes.unpin(node)
