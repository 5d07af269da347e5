# SPDX-License-Identifier: Apache-2.0
"""Something new: files, directories, links to nowhere, devices, files without a name."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from haoperator.replica import abi, attributes, frames, reading
from haoperator.replica.change import Change, resent

if TYPE_CHECKING:
    from haoperator.replica.directory import Directory
    from haoperator.replica.nodes import Node


def _own(magic: str, st: os.stat_result, parent: os.stat_result, header: abi.Header) -> None:
    """Give something new to the caller; in a set-gid directory it has got its group."""
    gid = st.st_gid if parent.st_mode & stat.S_ISGID else header.gid
    if (st.st_uid, st.st_gid) == (header.uid, gid):
        return
    os.chown(magic, header.uid, gid)
    if st.st_mode & (stat.S_ISUID | stat.S_ISGID) and not stat.S_ISLNK(st.st_mode):
        os.chmod(magic, stat.S_IMODE(st.st_mode))  # the change of owner cleared them


def _access_acl(directory: Directory, magic: str) -> bytes:
    """An access ACL that was inherited from the parent's default ACL."""
    if directory.outgoing.attached:
        with contextlib.suppress(OSError):
            return os.getxattr(magic, abi.ACL_ACCESS)
    return b""


def _made(
    directory: Directory,
    header: abi.Header,
    parent: Node,
    name: bytes,
    path: bytes,
    target: bytes = b"",
) -> tuple[Node, frames.Make, bytes]:
    """Finish something new: owner, node, frame and entry."""
    nodes = directory.nodes
    try:
        node, st = nodes.look(parent, name)
        parent_st = os.fstat(parent.fd)
        _own(node.magic, st, parent_st, header)
    except OSError:
        with contextlib.suppress(OSError):
            _remove(parent, name)
            attributes.tell_mtime(directory, parent)
        raise
    st = os.fstat(node.fd)
    node.lookups += 1
    node.made = directory.outgoing.verification
    frame = frames.Make(
        path,
        st.st_mode,
        st.st_uid,
        st.st_gid,
        st.st_rdev,
        st.st_mtime_ns,
        parent_st.st_mtime_ns,
        target,
        b"" if stat.S_ISLNK(st.st_mode) else _access_acl(directory, node.magic),
    )
    return node, frame, abi.pack_entry(node.id, st, directory.cache_seconds)


def _remove(parent: Node, name: bytes) -> None:
    if stat.S_ISDIR(os.stat(name, dir_fd=parent.fd, follow_symlinks=False).st_mode):
        os.rmdir(name, dir_fd=parent.fd)
    else:
        os.unlink(name, dir_fd=parent.fd)


def _is_there(parent: Node, name: bytes, kind: int) -> bool:
    with contextlib.suppress(OSError):
        st = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
        return stat.S_IFMT(st.st_mode) == kind
    return False


def create(directory: Directory, header: abi.Header, body: bytes) -> Change:
    flags, mode, umask, _ = abi.CREATE_IN.unpack_from(body)
    name, _ = abi.name_in(body, abi.CREATE_IN.size)
    nodes = directory.nodes
    parent = nodes.get(header.node)
    path = nodes.child_path(parent, name)
    directory.tracker.entry(parent, name, new=True)
    os.umask(umask)
    try:
        fd = os.open(
            name,
            os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOATIME | os.O_CLOEXEC,
            stat.S_IMODE(mode),
            dir_fd=parent.fd,
        )
    except FileExistsError:
        if flags & os.O_EXCL and not resent(header):
            raise
        return _open_existing(directory, parent, name, flags)
    node, frame, entry = _made(directory, header, parent, name, path)
    old = directory.hot.set_fd(node.id, fd)
    if old >= 0:
        os.close(old)
    node.opens += 1
    node.writers += reading.writes(flags)
    directory.outgoing.bound(node)
    return node.id, frame, entry + reading.open_answer(directory)


def _open_existing(directory: Directory, parent: Node, name: bytes, flags: int) -> Change:
    node, st = directory.nodes.look(parent, name)
    directory.data_fd(node)
    node.lookups += 1
    node.opens += 1
    node.writers += reading.writes(flags)
    entry = abi.pack_entry(node.id, st, directory.cache_seconds)
    return 0, None, entry + reading.open_answer(directory)


def tmpfile(directory: Directory, header: abi.Header, body: bytes) -> Change:
    _, mode, umask, _ = abi.CREATE_IN.unpack_from(body)
    nodes = directory.nodes
    parent = nodes.get(header.node)
    path = nodes.child_path(parent, b".")[:-1].rstrip(b"/")
    os.umask(umask)
    fd = os.open(
        parent.magic,
        os.O_TMPFILE | os.O_RDWR | os.O_NOATIME | os.O_CLOEXEC,
        stat.S_IMODE(mode),
    )
    node, st = nodes.adopt_nameless(os.open(f"/proc/self/fd/{fd}", os.O_PATH | os.O_CLOEXEC))
    _own(node.magic, st, os.fstat(parent.fd), header)
    st = os.fstat(node.fd)
    directory.hot.set_fd(node.id, fd)
    node.lookups += 1
    node.opens += 1
    node.writers += 1
    directory.outgoing.bound(node)
    frame = frames.Tmpfile(path, st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns)
    entry = abi.pack_entry(node.id, st, directory.cache_seconds)
    return node.id, frame, entry + reading.open_answer(directory)


def mknod(directory: Directory, header: abi.Header, body: bytes) -> Change:
    mode, device, umask, _ = abi.MKNOD_IN.unpack_from(body)
    name, _ = abi.name_in(body, abi.MKNOD_IN.size)
    parent = directory.nodes.get(header.node)
    path = directory.nodes.child_path(parent, name)
    directory.tracker.entry(parent, name, new=True)
    os.umask(umask)
    try:
        os.mknod(name, mode, abi.user_device(device), dir_fd=parent.fd)
    except FileExistsError:
        if not (resent(header) and _is_there(parent, name, stat.S_IFMT(mode))):
            raise
    node, frame, entry = _made(directory, header, parent, name, path)
    if node.regular:
        directory.outgoing.bound(node)
    return node.id if node.regular else 0, frame, entry


def mkdir(directory: Directory, header: abi.Header, body: bytes) -> Change:
    mode, umask = abi.MKDIR_IN.unpack_from(body)
    name, _ = abi.name_in(body, abi.MKDIR_IN.size)
    parent = directory.nodes.get(header.node)
    path = directory.nodes.child_path(parent, name)
    directory.tracker.entry(parent, name, new=True, whole=True)
    os.umask(umask)
    try:
        os.mkdir(name, stat.S_IMODE(mode), dir_fd=parent.fd)
    except FileExistsError:
        if not (resent(header) and _is_there(parent, name, stat.S_IFDIR)):
            raise
    node, frame, entry = _made(directory, header, parent, name, path)
    directory.tracker.made(parent, name, node)
    return 0, frame, entry


def symlink(directory: Directory, header: abi.Header, body: bytes) -> Change:
    name, at = abi.name_in(body)
    target, _ = abi.name_in(body, at)
    parent = directory.nodes.get(header.node)
    path = directory.nodes.child_path(parent, name)
    directory.tracker.entry(parent, name, new=True)
    try:
        os.symlink(target, name, dir_fd=parent.fd)
    except FileExistsError:
        if not (resent(header) and _is_there(parent, name, stat.S_IFLNK)):
            raise
    _, frame, entry = _made(directory, header, parent, name, path, target)
    return 0, frame, entry
