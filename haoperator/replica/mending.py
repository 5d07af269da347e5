# SPDX-License-Identifier: Apache-2.0
"""What a verification found is put right, as far as frames of the running stream can do it.

Contents are sent again, attributes are set again, at the place where the locks hold them.
Whether that helped is asked at the same place.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from collections.abc import Iterator

from haoperator.replica import frames
from haoperator.replica.abi import Valid
from haoperator.replica.asking import Asker
from haoperator.replica.comparing import compare
from haoperator.replica.difference import Difference, What
from haoperator.replica.directory import Directory
from haoperator.replica.exactly import Exact
from haoperator.replica.hashing import block_hash
from haoperator.replica.marks import BLOCK
from haoperator.replica.nodes import Node
from haoperator.replica.outgoing import Outgoing
from haoperator.replica.seeing import open_to_read

ATTRIBUTES = (What.SIZE, What.MODE, What.OWNER, What.MTIME)
MENDABLE = (What.CONTENT, *ATTRIBUTES)
"""Everything else is a matter of names, and for a resync."""

_SYNCDATA = struct.Struct("<QqII")


class Mender:
    """On the stream that the verification went over."""

    def __init__(self, outgoing: Outgoing, asker: Asker) -> None:
        self._outgoing = outgoing
        self._asker = asker
        self._exact = Exact(asker)

    def mend(self, directory: Directory, found: Difference) -> bool:
        """True if that does not differ any more. Raises Stopped."""
        try:
            if found.what is What.CONTENT:
                return all(
                    self._mend_block(directory, found.path, offset)
                    for offset in range(found.offset, found.end, BLOCK)
                )
            return found.what in ATTRIBUTES and self._mend_attributes(directory, found.path)
        except FileNotFoundError:
            return True  # it is not there any more, and the standby was told
        except OSError:
            return False

    def _mend_block(self, directory: Directory, path: bytes, offset: int) -> bool:
        with directory.namespace, _reached(directory, path) as node, _order(directory, node):
            fd = open_to_read(os.dup(node.fd))
            try:
                st = os.fstat(fd)
                data = os.pread(fd, BLOCK, offset)
            finally:
                os.close(fd)
            if not data:
                return True
            directory.tracker.content(node, offset, offset + len(data))  # it is not on disk yet
            self._outgoing.bind(directory, node)
            again = _SYNCDATA.pack(offset, st.st_mtime_ns, 0, 0) + data
            self._asker.tell_data(directory, node.id, again)
            seq = self._asker.ask(directory, frames.Sum(path, offset, 1, 1))
        self._asker.send()
        return self._asker.hashes(seq) == block_hash(data)

    def _mend_attributes(self, directory: Directory, path: bytes) -> bool:
        with directory.namespace, _reached(directory, path) as node, _order(directory, node):
            directory.tracker.attributes(node)
            st = os.fstat(node.fd)
            valid = Valid.UID | Valid.GID | Valid.MTIME
            if not stat.S_ISLNK(st.st_mode):
                valid |= Valid.MODE
            if node.regular:
                valid |= Valid.SIZE
            frame = frames.Setattr(
                path,
                valid,
                st.st_mode,
                st.st_uid,
                st.st_gid,
                st.st_size,
                frames.NO_TIME,
                st.st_mtime_ns,
            )
            self._asker.tell(directory, 0, frame)
        ((mine, theirs),) = self._exact.paths(directory, path)
        return not any(what in ATTRIBUTES for what, _ in compare(mine, theirs))


@contextlib.contextmanager
def _reached(directory: Directory, path: bytes) -> Iterator[Node]:
    """What a path means now, pinned. The namespace mutex is held. Raises OSError."""
    nodes = directory.nodes
    pinned: list[Node] = []
    node = nodes.root
    try:
        for name in path.split(b"/") if path else ():
            node, _ = nodes.look(node, name)
            node.pins += 1
            pinned.append(node)
        yield node
    finally:
        for each in reversed(pinned):
            nodes.unpin(each)


@contextlib.contextmanager
def _order(directory: Directory, node: Node) -> Iterator[None]:
    """Keep writes to it away."""
    directory.hot.lock(node.id)
    try:
        yield
    finally:
        directory.hot.unlock(node.id)
