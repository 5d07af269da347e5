# SPDX-License-Identifier: Apache-2.0
"""Attributes, extended attributes and allocation of what is there.

These run under the node lock as well: the order of changes to one inode, writes among
them, is the order of their frames.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

from haoperator.replica import _hotpath, abi, frames
from haoperator.replica.abi import Valid
from haoperator.replica.change import Change, resent

if TYPE_CHECKING:
    from haoperator.replica.directory import Directory
    from haoperator.replica.nodes import Node


MOVES_THE_REST = 0x08 | 0x20
"""FALLOC_FL_COLLAPSE_RANGE and FALLOC_FL_INSERT_RANGE."""
_FIELDS = {
    Valid.MODE: "st_mode",
    Valid.UID: "st_uid",
    Valid.GID: "st_gid",
    Valid.SIZE: "st_size",
    Valid.MTIME: "st_mtime_ns",
}


def _address(directory: Directory, node: Node) -> tuple[int, bytes] | None:
    """How a frame names an inode: (node id, path). None: the peer need not know."""
    if not directory.outgoing.attached:
        return None
    if directory.outgoing.is_bound(node):
        return node.id, b""
    path = directory.nodes.path(node)
    if path is None:
        directory.require_nameless(node)
        return None
    return 0, path


@contextlib.contextmanager
def _told_if_it_fails(
    directory: Directory, node: Node, address: tuple[int, bytes] | None
) -> Iterator[None]:
    """What a change has done before it failed, the peer is told: a full disk may end an
    allocation half-way. The frame goes with the next one, nobody waits for it."""
    before = os.fstat(node.fd)
    try:
        yield
    except OSError:
        after = os.fstat(node.fd)
        valid = 0
        for field, name in _FIELDS.items():
            if getattr(before, name) != getattr(after, name):
                valid |= field
        if address and valid:
            frame = _results(address[1], valid, after)
            directory.outgoing.submit(directory.index, address[0], frame)
        raise


def tell_mtime(directory: Directory, node: Node) -> None:
    """Something in a directory failed, and left nothing but another time of it."""
    path = directory.nodes.path(node)
    if path is not None:
        frame = _results(path, Valid.MTIME, os.fstat(node.fd))
        directory.outgoing.submit(directory.index, 0, frame)


def setattr_(directory: Directory, header: abi.Header, body: bytes) -> Change:
    fields = abi.SETATTR_IN.unpack_from(body)
    valid, size = fields[0] & 0xFFF, fields[3]
    node = directory.nodes.get(header.node)
    address = _address(directory, node)
    if valid & Valid.SIZE:
        sizes = size, os.fstat(node.fd).st_size
        directory.tracker.content(node, min(sizes), max(sizes))
    else:
        directory.tracker.attributes(node)
    with _told_if_it_fails(directory, node, address):
        _set_owner(node, valid, fields[13], fields[14])
        if valid & Valid.MODE:
            os.chmod(node.magic, stat.S_IMODE(fields[11]))
        if valid & Valid.SIZE:
            before = os.fstat(node.fd)
            os.truncate(node.magic, size)
            if not valid & Valid.MTIME:
                _leave_time_to_kernel(directory, node, before)
        if valid & Valid.KILL_SUIDGID:
            _kill_suidgid(node)
        _set_times(node, valid, fields)
    st = os.fstat(node.fd)
    answer = abi.pack_attr_out(st, directory.cache_seconds)
    if address is None:
        return 0, None, answer
    return address[0], _results(address[1], valid, st), answer


def _set_owner(node: Node, valid: int, uid: int, gid: int) -> None:
    if valid & (Valid.UID | Valid.GID):
        os.chown(node.magic, uid if valid & Valid.UID else -1, gid if valid & Valid.GID else -1)


def _kill_suidgid(node: Node) -> None:
    mode = stat.S_IMODE(os.fstat(node.fd).st_mode)
    kept = mode & ~stat.S_ISUID
    if kept & stat.S_IXGRP:
        kept &= ~stat.S_ISGID
    if kept != mode:
        os.chmod(node.magic, kept)


def _set_times(node: Node, valid: int, fields: tuple[int, ...]) -> None:
    if not valid & (Valid.ATIME | Valid.MTIME):
        return
    atime = _time(fields[5], fields[8]) if valid & Valid.ATIME else None
    mtime = _time(fields[6], fields[9]) if valid & Valid.MTIME else None
    atime = _hotpath.TIME_NOW if valid & Valid.ATIME_NOW else atime
    mtime = _hotpath.TIME_NOW if valid & Valid.MTIME_NOW else mtime
    _hotpath.set_times(node.fd, atime, mtime)


def _leave_time_to_kernel(directory: Directory, node: Node, before: os.stat_result) -> None:
    """A kernel that caches writes says itself, and later, when a file was changed."""
    if directory.caches_writes:
        _hotpath.set_times(node.fd, None, before.st_mtime_ns)


def _time(seconds: int, nanoseconds: int) -> int:
    """What the kernel asked for, as far as a frame can say it: up to the year 2262."""
    return min(seconds * 1_000_000_000 + nanoseconds, frames.LATEST)


def _results(path: bytes, valid: int, st: os.stat_result) -> frames.Setattr:
    if valid & (Valid.UID | Valid.GID | Valid.KILL_SUIDGID) and not stat.S_ISLNK(st.st_mode):
        valid |= Valid.MODE
    if valid & Valid.SIZE:
        valid |= Valid.MTIME
    return frames.Setattr(
        path,
        valid,
        st.st_mode,
        st.st_uid,
        st.st_gid,
        st.st_size,
        st.st_atime_ns if valid & Valid.ATIME else frames.NO_TIME,
        st.st_mtime_ns if valid & Valid.MTIME else frames.NO_TIME,
    )


def fallocate(directory: Directory, header: abi.Header, body: bytes) -> Change:
    _, offset, length, mode, _ = abi.FALLOCATE_IN.unpack_from(body)
    node = directory.nodes.get(header.node)
    fd = directory.data_fd(node)
    bound = directory.outgoing.bind(directory, node)
    end = offset + length
    if mode & MOVES_THE_REST:
        end = max(end, os.fstat(fd).st_size + length)
    directory.tracker.content(node, offset, end)
    before = os.fstat(fd)
    with _told_if_it_fails(directory, node, (node.id, b"") if bound else None):
        _hotpath.fallocate(fd, mode, offset, length)
    _leave_time_to_kernel(directory, node, before)
    st = os.fstat(fd)
    frame = frames.Fallocate(mode, offset, length, st.st_mtime_ns)
    if not header.uid or not st.st_mode & (stat.S_ISUID | stat.S_ISGID):
        return node.id, frame if bound else None, b""
    _kill_suidgid(node)  # as a write of somebody else than root does
    directory.attributes_changed(node)  # the kernel does not expect it of this request
    if not bound:
        return node.id, None, b""
    directory.outgoing.submit(directory.index, node.id, frame)
    return node.id, _results(b"", Valid.MODE, os.fstat(fd)), b""


def setxattr(directory: Directory, header: abi.Header, body: bytes) -> Change:
    size, flags, special, _ = abi.SETXATTR_IN.unpack_from(body)
    name, at = abi.name_in(body, abi.SETXATTR_IN.size)
    value = body[at : at + size]
    node = directory.nodes.get(header.node)
    address = _address(directory, node)
    directory.tracker.attributes(node)
    try:
        os.setxattr(node.magic, name, value, flags)
    except FileExistsError:
        if not resent(header):
            raise
    frame = frames.Setxattr(address[1], name, value) if address else None
    if special & abi.SETXATTR_ACL_KILL_SGID:
        os.chmod(node.magic, stat.S_IMODE(os.fstat(node.fd).st_mode) & ~stat.S_ISGID)
        if address and frame:
            directory.outgoing.submit(directory.index, address[0], frame)
            st = os.fstat(node.fd)
            return address[0], _results(address[1], Valid.MODE, st), b""
    return address[0] if address else 0, frame, b""


def removexattr(directory: Directory, header: abi.Header, body: bytes) -> Change:
    name, _ = abi.name_in(body)
    node = directory.nodes.get(header.node)
    address = _address(directory, node)
    directory.tracker.attributes(node)
    try:
        os.removexattr(node.magic, name)
    except OSError as err:
        if err.errno != errno.ENODATA or not resent(header):
            raise
    if address is None:
        return 0, None, b""
    return address[0], frames.Removexattr(address[1], name), b""
