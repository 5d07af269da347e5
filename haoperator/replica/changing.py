# SPDX-License-Identifier: Apache-2.0
"""The requests that change names and attributes: applied here, sent, then answered."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from haoperator.replica import abi, attributes, frames, making, naming, wire
from haoperator.replica.change import Handler

if TYPE_CHECKING:
    from haoperator.replica.directory import Directory

OF_AN_INODE = (abi.Op.SETATTR, abi.Op.FALLOCATE, abi.Op.SETXATTR, abi.Op.REMOVEXATTR)


def serve(directory: Directory, header: abi.Header, body: bytes, request: bytes) -> None:
    """Carry out one change. It may be parked or refused at the gate. Raises OSError."""
    hot = directory.hot
    if not hot.enter(directory.fuse_fd, directory.index, request):
        return
    try:
        if header.opcode == abi.Op.FSYNCDIR:
            fsyncdir(directory, header)
            return
        with directory.namespace, _order(directory, header):
            directory.nodes.current(header.node)
            node, frame, answer = HANDLERS[header.opcode](directory, header, body)
            if frame is None or not directory.outgoing.attached:
                hot.answer(directory.fuse_fd, header.unique, 0, answer)
                return
            hot.submit(
                wire.type_of(frame),
                directory.index,
                node,
                wire.payload_of(frame),
                directory.fuse_fd,
                header.unique,
                answer,
            )
        hot.flush()
    finally:
        hot.leave()


@contextlib.contextmanager
def _order(directory: Directory, header: abi.Header) -> Iterator[None]:
    """Keep writes to the inode away until the frame is on the stream.

    Taken after the namespace mutex, never before it.
    """
    if header.opcode not in OF_AN_INODE:
        yield
        return
    directory.hot.lock(header.node)
    try:
        yield
    finally:
        directory.hot.unlock(header.node)


def fsyncdir(directory: Directory, header: abi.Header) -> None:
    """Names on disk, here and there. Answered when both are done."""
    with directory.namespace:
        node = directory.nodes.get(header.node)
        path = directory.nodes.path(node)
    fd = os.open(node.magic, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    if path is None or not directory.outgoing.attached:
        directory.hot.answer(directory.fuse_fd, header.unique, 0, b"")
        return
    frame = frames.FsyncPath(path)
    directory.hot.submit_fsync(
        wire.type_of(frame),
        directory.index,
        0,
        wire.payload_of(frame),
        directory.fuse_fd,
        header.unique,
        0,
    )
    directory.hot.flush()


HANDLERS: dict[int, Handler] = {
    abi.Op.CREATE: making.create,
    abi.Op.TMPFILE: making.tmpfile,
    abi.Op.MKNOD: making.mknod,
    abi.Op.MKDIR: making.mkdir,
    abi.Op.SYMLINK: making.symlink,
    abi.Op.UNLINK: naming.unlink,
    abi.Op.RMDIR: naming.rmdir,
    abi.Op.RENAME: naming.rename,
    abi.Op.RENAME2: naming.rename2,
    abi.Op.LINK: naming.link,
    abi.Op.SETATTR: attributes.setattr_,
    abi.Op.SETXATTR: attributes.setxattr,
    abi.Op.REMOVEXATTR: attributes.removexattr,
    abi.Op.FALLOCATE: attributes.fallocate,
}
OPCODES = frozenset((*HANDLERS, abi.Op.FSYNCDIR))
