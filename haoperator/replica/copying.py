# SPDX-License-Identifier: Apache-2.0
"""What differs of one file goes to the peer: blocks found by hash, and its metadata.

The peer's hashes may be as old as they like: bytes that nobody touched since the file was
bound are equal if their hashes are, and bytes that somebody touched were forwarded.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from haoperator.replica import frames, wire
from haoperator.replica.abi import Valid
from haoperator.replica.courier import Courier
from haoperator.replica.directory import Directory
from haoperator.replica.hashing import HASH_BYTES, block_hash, hash_blocks
from haoperator.replica.marks import BLOCK, ZONE_BLOCKS, Range, merged
from haoperator.replica.nodes import Node


@dataclass(slots=True)
class Progress:
    """How far the resync of one directory is, in bytes."""

    total: int = 0
    compared: int = 0
    copied: int = 0

    @property
    def share(self) -> float:
        return min(1.0, self.compared / self.total) if self.total else 0.0


class Copier:
    """Copies the content of files that the peer knows by their ids."""

    def __init__(self, courier: Courier) -> None:
        self._courier = courier
        self._hot = courier.hot

    @contextlib.contextmanager
    def order(self, node: Node) -> Iterator[None]:
        """The node lock: what is read and sent under it is true at its place of the stream."""
        self._hot.lock(node.id)
        try:
            yield
        finally:
            self._hot.unlock(node.id)

    def copy(
        self,
        directory: Directory,
        node: Node,
        progress: Progress,
        ranges: list[Range] | None,
    ) -> None:
        """Make the peer's content equal: the first zone and `ranges`, None: all. Hold no lock."""
        fd = os.open(node.magic, os.O_RDONLY | os.O_NOATIME | os.O_CLOEXEC)
        try:
            with self.order(node):
                size = os.fstat(fd).st_size
                no = frames.NO_TIME
                length = frames.Setattr(b"", Valid.SIZE, 0, 0, 0, size, no, no)
                self._courier.submit(directory, node.id, length)
            last = -(-size // BLOCK) - 1
            if ranges is None:
                ranges = [Range(0, last)]
            else:
                ranges = merged([Range(0, ZONE_BLOCKS - 1), *ranges])
            for first, end in ranges:
                while first <= min(end, last):
                    count = min(self._courier.pace.blocks, min(end, last) + 1 - first)
                    self._compare(directory, node, fd, first * BLOCK, count, progress)
                    progress.compared += min(size - first * BLOCK, count * BLOCK)
                    first += count
                    self._courier.settle()
        finally:
            os.close(fd)

    def _compare(
        self, directory: Directory, node: Node, fd: int, offset: int, count: int, progress: Progress
    ) -> None:
        asked = self._courier.submit(directory, node.id, frames.Hash(offset, count))
        self._hot.flush()
        mine = hash_blocks(fd, offset, count)
        theirs = self._courier.answer(asked)
        for at in range(0, len(mine), HASH_BYTES):
            their = theirs[at : at + HASH_BYTES]
            if mine[at : at + HASH_BYTES] != their:
                place = offset + at // HASH_BYTES * BLOCK
                progress.copied += self._copy_block(directory, node, fd, place, their)

    def _copy_block(
        self, directory: Directory, node: Node, fd: int, place: int, their: bytes
    ) -> int:
        with self.order(node):
            data = os.pread(fd, BLOCK, place)
            if not data or block_hash(data) == their:
                return 0
            self._courier.submit_data(directory, node, place, data)
        self._courier.settle()
        return len(data)

    def send_meta(self, directory: Directory, node: Node, path: bytes) -> None:
        """Under the namespace mutex, and the node lock of a regular file."""
        st = os.fstat(node.fd)
        xattrs: list[bytes] = []
        for name in os.listxattr(node.magic):
            with contextlib.suppress(OSError):
                xattr = (os.fsencode(name), os.getxattr(node.magic, name))
                xattrs.append(wire.pack(wire.XATTR, xattr))
        packed = b"".join(xattrs)
        meta = frames.Meta(path, st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns, packed)
        self._courier.submit(directory, 0, meta)
