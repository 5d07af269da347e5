# SPDX-License-Identifier: Apache-2.0
"""The walk that makes the peer's trees equal to ours while the application writes.

Everything the application changes meanwhile is forwarded as always. The walk adds what
differs: for each directory its listing, for each file the blocks whose hashes differ,
last its metadata. It may use the peer's hashes however old they are: bytes that nobody
touched since then are equal by hash, and bytes that somebody touched were forwarded.

A node is marked as walked once the peer has it, a directory once the peer has its names.
The peer's copy of a walked directory has exactly our names from there on, because the
frames that follow change it just as ours. What is not walked and gets into a walked
directory is put on the list; what gets into another one is found with that one's listing.
A directory is only ever visited from a walked one, so that the peer has it.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import stat
import struct
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from haoperator.replica import wire
from haoperator.replica.abi import Valid
from haoperator.replica.directory import Directory
from haoperator.replica.hashing import BLOCK, HASH_BYTES, MOST_BLOCKS, block_hash, hash_blocks
from haoperator.replica.nodes import Name, Node
from haoperator.replica.outgoing import Outgoing

_SYNCDATA = struct.Struct("<QqII")
IN_FLIGHT = 64
"""Frames of the walk that the peer may be behind."""
ANSWER_SECONDS = 60.0

log = logging.getLogger(__name__)


class Interrupted(Exception):
    """The stream ended, or the role changed. A resync simply begins again."""


@dataclass(slots=True)
class Progress:
    """How far the resync of one directory is, in bytes."""

    total: int = 0
    compared: int = 0
    copied: int = 0

    @property
    def share(self) -> float:
        return min(1.0, self.compared / self.total) if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Work:
    """A name to visit. `parent` is pinned."""

    directory: Directory
    parent: Node
    name: bytes
    listed: int = 0
    """The inode that the peer was told of by this name, 0: none."""


@dataclass(slots=True)
class Group:
    """An inode that has, or had, several names."""

    directory: Directory
    node: Node
    id: int
    told: set[Name] = field(default_factory=set)
    """Names that the peer was told of as being of this group."""
    whole: bool = False
    """The peer has its content and metadata: another name is only linked."""


class Resync:
    """One walk over all directories, on the stream that is attached now."""

    def __init__(self, outgoing: Outgoing, directories: Iterable[Directory]) -> None:
        self._outgoing = outgoing
        self._hot = outgoing.hot
        self._epoch = outgoing.epoch
        self._directories = list(directories)
        self.progress = {directory.name: Progress() for directory in self._directories}
        self._work: collections.deque[Work] = collections.deque()
        self._groups: dict[int, Group] = {}
        """By node id; the nodes are pinned."""
        self._last_group = 0
        self._in_flight: collections.deque[int] = collections.deque()
        self._answers: dict[int, bytes] = {}
        self._answered = threading.Condition()
        self._cancelled = False
        self._begun = False
        outgoing.moved = self.moved

    # Called by other threads.

    def cancel(self) -> None:
        """Make `run` raise Interrupted soon."""
        with self._answered:
            self._cancelled = True
            self._answered.notify_all()

    def deliver(self, seq: int, hashes: bytes) -> None:
        """The peer's answer to a HASH."""
        with self._answered:
            self._answers[seq] = hashes
            self._answered.notify_all()

    def moved(self, directory: Directory, parent: Node, name: bytes) -> None:
        """Something got a new name. Called under the namespace mutex."""
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

    # The walk.

    def run(self) -> None:
        """Walk until nothing is left. May be called again when `moved` brought more."""
        if not self._begun:
            self._begun = True
            for directory in self._directories:
                self._estimate(directory)
            for directory in self._directories:
                self._walk_nameless(directory)
                with directory.namespace:
                    self._list(directory, directory.nodes.root, b"")
        while self._work:
            self._check()
            self._visit(self._work.pop())
        self._settle()

    def finish(self) -> None:
        """Give back what the walk held. Harmless to repeat."""
        if self._outgoing.moved == self.moved:
            self._outgoing.moved = lambda *_: None
        while self._work:
            work = self._work.pop()
            with work.directory.namespace:
                work.directory.nodes.unpin(work.parent)
        for group in self._groups.values():
            with group.directory.namespace:
                group.directory.nodes.unpin(group.node)
        self._groups.clear()

    def _check(self) -> None:
        if self._cancelled:
            raise Interrupted

    def _add(self, work: Work) -> None:
        work.parent.pins += 1
        self._work.append(work)

    def _submit(self, directory: Directory, node: int, frame: wire.Frame) -> int:
        seq = self._outgoing.submit(directory.index, node, frame, self._epoch)
        if not seq:
            raise Interrupted  # another stream, or none
        self._in_flight.append(seq)
        return seq

    def _settle(self) -> None:
        """Send, and do not run far ahead of the peer. Hold no lock."""
        self._check()
        self._hot.flush()
        while len(self._in_flight) > IN_FLIGHT:
            if not self._hot.wait_acked(self._in_flight.popleft(), int(ANSWER_SECONDS * 1000)):
                raise Interrupted

    def _estimate(self, directory: Directory) -> None:
        progress = self.progress[directory.name]

        def add_up(path: bytes) -> None:
            self._check()
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
                if stat.S_ISDIR(node.kind):
                    self._list(directory, node, path)
                elif not node.regular:
                    self._send_meta(node, directory, path)
                elif node.id not in self._groups or not self._groups[node.id].whole:
                    self._prepare_copy(work, node)
                    copy = node, self._groups.get(node.id)
            if copy is not None:
                self._copy(directory, *copy)
        self._settle()

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

    @contextlib.contextmanager
    def _pins(self, directory: Directory) -> Iterator[list[Node]]:
        pins: list[Node] = []
        try:
            yield pins
        finally:
            with directory.namespace:
                for node in pins:
                    directory.nodes.unpin(node)

    def _list_one(self, work: Work, st: os.stat_result) -> None:
        """Tell the peer of one name without ending a listing: nothing is removed."""
        path = work.directory.nodes.path(work.parent)
        if path is None:
            raise FileNotFoundError
        entry = self._entry(work.directory, work.parent, work.name, st)
        mtime_ns = os.fstat(work.parent.fd).st_mtime_ns
        listing = wire.Listing(path, 0, 0, mtime_ns, wire.pack(wire.ENTRY, entry))
        self._submit(work.directory, 0, listing)

    def _list(self, directory: Directory, node: Node, path: bytes) -> None:
        """One directory: metadata, names, and what is in it goes on the list.

        Under the namespace mutex, all of it: a listing is true at one place of the stream.
        """
        self._send_meta(node, directory, path)
        found: list[tuple[bytes, os.stat_result]] = []
        for name in os.listdir(os.fsencode(node.magic)):
            with contextlib.suppress(FileNotFoundError):
                found.append((name, os.stat(name, dir_fd=node.fd, follow_symlinks=False)))
        mtime_ns = os.fstat(node.fd).st_mtime_ns
        for at in range(0, max(len(found), 1), wire.LISTING_PART):
            part = found[at : at + wire.LISTING_PART]
            entries = b"".join(
                wire.pack(wire.ENTRY, self._entry(directory, node, name, st)) for name, st in part
            )
            last = int(at + wire.LISTING_PART >= len(found))
            number = at // wire.LISTING_PART
            self._submit(directory, 0, wire.Listing(path, number, last, mtime_ns, entries))
        node.walked = self._epoch
        for name, st in reversed(found):
            self._add(Work(directory, node, name, st.st_ino))

    def _entry(
        self, directory: Directory, parent: Node, name: bytes, st: os.stat_result
    ) -> wire.Entry:
        target = b""
        if stat.S_ISLNK(st.st_mode):
            target = os.readlink(name, dir_fd=parent.fd)
        group = 0 if stat.S_ISDIR(st.st_mode) else self._group(directory, parent, name, st)
        return wire.Entry(name, st.st_mode, st.st_rdev, group, target)

    def _group(self, directory: Directory, parent: Node, name: bytes, st: os.stat_result) -> int:
        """The id of the group that a name belongs to, 0 for an inode that never had two.

        An inode stays in its group when it has one name left. When none of the names is
        left that the peer was told of, the peer's inode may be gone: a new group begins.
        """
        node = directory.nodes.find(st)
        group = self._groups.get(node.id) if node is not None else None
        if st.st_nlink == 1 and group is None:
            return 0
        node, _ = directory.nodes.look(parent, name)
        if group is None:
            node.pins += 1  # its id stands for the inode until the end
        if group is None or not group.told.intersection(node.names):
            self._last_group += 1
            group = self._groups[node.id] = Group(directory, node, self._last_group)
        group.told.add((parent.id, name))
        return group.id

    def _walk_nameless(self, directory: Directory) -> None:
        """Files from O_TMPFILE that are open and may yet get a name."""
        with directory.namespace:
            nameless = [node for node in directory.nodes if node.nameless and node.opens]
            for node in nameless:
                st = os.fstat(node.fd)
                frame = wire.Tmpfile(b"", st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns)
                self._submit(directory, node.id, frame)
                self._outgoing.bound(node)
                node.pins += 1
        for node in nameless:
            self._copy_data(directory, node)
            with directory.namespace:
                directory.nodes.unpin(node)

    def _prepare_copy(self, work: Work, node: Node) -> None:
        """Make the peer know a file by its id, whatever it meant by that before."""
        directory = work.directory
        if os.fstat(node.fd).st_nlink > 1:
            self._unite(directory, node)
        # By the name that is visited: the peer has it, others perhaps not yet.
        directory.nodes.prefer_name(node, work.parent, work.name)
        self._outgoing.bind(directory, node, again=True)

    def _copy(self, directory: Directory, node: Node, group: Group | None) -> None:
        """One regular file: what differs of its content, then its metadata."""
        self._copy_data(directory, node)
        with directory.namespace, self._order(node):
            path = directory.nodes.path(node)
            if path is not None:
                self._send_meta(node, directory, path)
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

    @contextlib.contextmanager
    def _order(self, node: Node) -> Iterator[None]:
        self._hot.lock(node.id)
        try:
            yield
        finally:
            self._hot.unlock(node.id)

    def _copy_data(self, directory: Directory, node: Node) -> None:
        progress = self.progress[directory.name]
        fd = os.open(node.magic, os.O_RDONLY | os.O_NOATIME | os.O_CLOEXEC)
        try:
            with self._order(node):
                size = os.fstat(fd).st_size
                length = wire.Setattr(b"", Valid.SIZE, 0, 0, 0, size, wire.NO_TIME, wire.NO_TIME)
                self._submit(directory, node.id, length)
            for offset in range(0, size, BLOCK * MOST_BLOCKS):
                count = min(MOST_BLOCKS, -(-(size - offset) // BLOCK))
                seq = self._submit(directory, node.id, wire.Hash(offset, count))
                self._hot.flush()
                mine = hash_blocks(fd, offset, count)
                theirs = self._answer(seq)
                self._copy_blocks(directory, node, fd, offset, mine, theirs)
                progress.compared += min(size - offset, count * BLOCK)
        finally:
            os.close(fd)

    def _answer(self, seq: int) -> bytes:
        with self._answered:
            got = self._answered.wait_for(
                lambda: seq in self._answers or self._cancelled, ANSWER_SECONDS
            )
            self._check()
            if not got:
                raise Interrupted
            return self._answers.pop(seq)

    def _copy_blocks(
        self, directory: Directory, node: Node, fd: int, offset: int, mine: bytes, theirs: bytes
    ) -> None:
        for at in range(0, len(mine), HASH_BYTES):
            place = offset + at // HASH_BYTES * BLOCK
            their = theirs[at : at + HASH_BYTES]
            if mine[at : at + HASH_BYTES] == their:
                continue
            with self._order(node):
                data = os.pread(fd, BLOCK, place)
                if block_hash(data) == their or not data:
                    continue
                payload = _SYNCDATA.pack(place, wire.NO_TIME, 0, 0) + data
                seq = self._hot.submit(
                    wire.Type.SYNCDATA, directory.index, node.id, payload, -1, 0, b"", self._epoch
                )
                self._in_flight.append(seq)
            self.progress[directory.name].copied += len(data)
            self._settle()

    def _send_meta(self, node: Node, directory: Directory, path: bytes) -> None:
        """Under the namespace mutex, and the node lock of a regular file."""
        st = os.fstat(node.fd)
        xattrs: list[bytes] = []
        for name in os.listxattr(node.magic):
            with contextlib.suppress(OSError):
                xattr = (os.fsencode(name), os.getxattr(node.magic, name))
                xattrs.append(wire.pack(wire.XATTR, xattr))
        packed = b"".join(xattrs)
        meta = wire.Meta(path, st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns, packed)
        self._submit(directory, 0, meta)
