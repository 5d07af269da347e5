# SPDX-License-Identifier: Apache-2.0
"""The walk that makes the peer's trees equal to ours while the application writes.

Everything the application changes meanwhile is forwarded as always. The walk adds what
differs: for each directory its listing, for each file the blocks whose hashes differ,
last its metadata. It may use the peer's hashes however old they are: bytes that nobody
touched since then are equal by hash, and bytes that somebody touched were forwarded.

A node is marked as walked once the peer has it. What moves before that is put on the
list again at its new place; what moves after that moves at the peer just the same.
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
from dataclasses import dataclass

from haoperator.replica import wire
from haoperator.replica.abi import Valid
from haoperator.replica.directory import Directory
from haoperator.replica.hashing import BLOCK, HASH_BYTES, MOST_BLOCKS, block_hash, hash_blocks
from haoperator.replica.nodes import Node
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
    """A name to visit. `parent` is pinned. `listed`: the peer was told of it."""

    directory: Directory
    parent: Node
    name: bytes
    listed: bool


class Resync:
    """One walk over all directories, on the stream that is attached now."""

    def __init__(self, outgoing: Outgoing, directories: Iterable[Directory]) -> None:
        self._outgoing = outgoing
        self._hot = outgoing.hot
        self._epoch = outgoing.epoch
        self._directories = list(directories)
        self.progress = {directory.name: Progress() for directory in self._directories}
        self._work: collections.deque[Work] = collections.deque()
        self._pinned: list[tuple[Directory, Node]] = []
        self._in_flight: collections.deque[int] = collections.deque()
        self._answers: dict[int, bytes] = {}
        self._answered = threading.Condition()
        self._cancelled = False

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
            self._add(Work(directory, parent, name, listed=False))

    @property
    def done(self) -> bool:
        """Nothing is left to visit. Final only while no change is in flight."""
        return not self._work

    # The walk.

    def run(self) -> None:
        """Walk until nothing is left. May be called again when `moved` brought more."""
        if self._outgoing.moved != self.moved:
            self._outgoing.moved = self.moved
            for directory in self._directories:
                self._estimate(directory)
            for directory in self._directories:
                self._walk_nameless(directory)
                self._walk(directory, directory.nodes.root)
        while self._work:
            self._check()
            self._visit(self._work.pop())
        self._settle()

    def finish(self) -> None:
        """Give back what the walk held. Harmless to repeat."""
        self._outgoing.moved = lambda *_: None
        while self._work:
            work = self._work.pop()
            with work.directory.namespace:
                work.directory.nodes.unpin(work.parent)
        for directory, node in self._pinned:
            with directory.namespace:
                directory.nodes.unpin(node)
        self._pinned.clear()

    def _check(self) -> None:
        if self._cancelled:
            raise Interrupted

    def _add(self, work: Work) -> None:
        work.parent.pins += 1
        self._work.append(work)

    def _submit(self, directory: Directory, node: int, frame: wire.Frame) -> int:
        seq = self._outgoing.submit(directory.index, node, frame)
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
        directory, nodes = work.directory, work.directory.nodes
        with directory.namespace:
            try:
                node, st = nodes.look(work.parent, work.name)
                if not work.listed:
                    self._list_one(work, node, st)
            except OSError:  # gone, and the peer was told
                nodes.unpin(work.parent)
                return
            node.pins += 1
            nodes.unpin(work.parent)
        try:
            if stat.S_ISDIR(st.st_mode):
                self._walk(directory, node)
            elif not node.regular:
                with directory.namespace:
                    self._send_meta(directory, node)
            elif st.st_nlink == 1 or node.walked != self._epoch or not work.listed:
                self._copy(directory, node)
        finally:
            with directory.namespace:
                nodes.unpin(node)
        self._settle()

    def _list_one(self, work: Work, node: Node, st: os.stat_result) -> None:
        """Tell the peer of one name without ending a listing: nothing is removed."""
        path = work.directory.nodes.path(work.parent)
        if path is None:
            raise FileNotFoundError
        entry = self._entry(work.directory, work.parent, work.name, st)
        listing = wire.Listing(path, 0, 0, 0, wire.pack(wire.ENTRY, entry))
        self._submit(work.directory, 0, listing)

    def _walk(self, directory: Directory, node: Node) -> None:
        """One directory: metadata, listing, and what is in it."""
        names: list[bytes] = []
        with directory.namespace:
            path = directory.nodes.path(node)
            if path is None:
                return
            self._send_meta(directory, node)
            parts = list(self._parts(directory, node, names))
            mtime_ns = os.fstat(node.fd).st_mtime_ns
            for number, part in enumerate(parts):
                last = int(number == len(parts) - 1)
                self._submit(directory, 0, wire.Listing(path, number, last, mtime_ns, part))
            node.walked = self._epoch
            for name in reversed(names):
                self._add(Work(directory, node, name, listed=True))
        self._settle()

    def _parts(self, directory: Directory, node: Node, names: list[bytes]) -> Iterator[bytes]:
        entries: list[bytes] = []
        for name in os.listdir(os.fsencode(node.magic)):
            try:
                st = os.stat(name, dir_fd=node.fd, follow_symlinks=False)
            except OSError:
                continue
            names.append(name)
            entry = self._entry(directory, node, name, st)
            entries.append(wire.pack(wire.ENTRY, entry))
            if len(entries) == wire.LISTING_PART:
                yield b"".join(entries)
                entries = []
        yield b"".join(entries)

    def _entry(
        self, directory: Directory, parent: Node, name: bytes, st: os.stat_result
    ) -> wire.Entry:
        target = b""
        group = 0
        if stat.S_ISLNK(st.st_mode):
            target = os.readlink(name, dir_fd=parent.fd)
        if st.st_nlink > 1 and not stat.S_ISDIR(st.st_mode):
            node, _ = directory.nodes.look(parent, name)
            node.pins += 1  # its id stands for the inode until the end
            self._pinned.append((directory, node))
            group = node.id
        return wire.Entry(name, st.st_mode, st.st_rdev, group, target)

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

    def _copy(self, directory: Directory, node: Node) -> None:
        """One regular file: what differs of its content, then its metadata."""
        with directory.namespace:
            if directory.nodes.path(node) is None:
                return
            self._outgoing.bind(directory, node, again=True)
        self._copy_data(directory, node)
        with directory.namespace, self._order(node):
            self._send_meta(directory, node)
            node.walked = self._epoch

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
                    wire.Type.SYNCDATA, directory.index, node.id, payload, -1, 0, b""
                )
                self._in_flight.append(seq)
            self.progress[directory.name].copied += len(data)
            self._settle()

    def _send_meta(self, directory: Directory, node: Node) -> None:
        """Under the namespace mutex, and the node lock of a regular file."""
        path = directory.nodes.path(node)
        if path is None:
            return
        st = os.fstat(node.fd)
        xattrs: list[bytes] = []
        for name in os.listxattr(node.magic):
            with contextlib.suppress(OSError):
                xattr = (os.fsencode(name), os.getxattr(node.magic, name))
                xattrs.append(wire.pack(wire.XATTR, xattr))
        meta = wire.Meta(path, st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns, b"".join(xattrs))
        self._submit(directory, 0, meta)
