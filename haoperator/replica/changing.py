# SPDX-License-Identifier: Apache-2.0
"""The requests that change names and attributes: applied here, sent, then answered.

Each handler runs under the namespace mutex, carries out the change on the backing file
system and returns the frame that makes the peer do the same, with the answer for the
caller, which the peer's acknowledgement releases. A handler that raises has changed
nothing, and nothing is sent. A frame of None: the peer need not know.

Frames carry results (modes, owners, times of the changed inode and of its parent), not
requests, so that the peer ends up with the same.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from haoperator.replica import _hotpath, abi, reading, wire
from haoperator.replica.abi import Valid
from haoperator.replica.outgoing import Phase

if TYPE_CHECKING:
    from haoperator.replica.directory import Directory
    from haoperator.replica.nodes import Node, NodeTable

Change = tuple[int, wire.Frame | None, bytes]
"""Node id (0: none), frame, answer."""
Handler = Callable[["Directory", abi.Header, bytes], Change]

RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
ACL_ACCESS = "system.posix_acl_access"
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
    frame = wire.FsyncPath(path)
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


def _resent(header: abi.Header) -> bool:
    """The kernel delivers it again after our restart: it may have been carried out."""
    return bool(header.unique & abi.RESENT)


def _parent_mtime(parent: Node) -> int:
    return os.fstat(parent.fd).st_mtime_ns


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
            return os.getxattr(magic, ACL_ACCESS)
    return b""


def _made(
    directory: Directory,
    header: abi.Header,
    parent: Node,
    name: bytes,
    path: bytes,
    target: bytes = b"",
) -> tuple[Node, wire.Make, bytes]:
    """Finish something new: owner, node, frame and entry."""
    nodes = directory.nodes
    try:
        node, st = nodes.look(parent, name)
        parent_st = os.fstat(parent.fd)
        _own(node.magic, st, parent_st, header)
    except OSError:
        with contextlib.suppress(OSError):
            _remove(parent, name)
        raise
    st = os.fstat(node.fd)
    node.lookups += 1
    directory.outgoing.created(parent, node)
    frame = wire.Make(
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
    os.umask(umask)
    try:
        fd = os.open(
            name,
            os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOATIME | os.O_CLOEXEC,
            stat.S_IMODE(mode),
            dir_fd=parent.fd,
        )
    except FileExistsError:
        if flags & os.O_EXCL and not _resent(header):
            raise
        return _open_existing(directory, parent, name)
    node, frame, entry = _made(directory, header, parent, name, path)
    old = directory.hot.set_fd(node.id, fd)
    if old >= 0:
        os.close(old)
    node.opens += 1
    directory.outgoing.bound(node)
    return node.id, frame, entry + reading.open_answer(directory)


def _open_existing(directory: Directory, parent: Node, name: bytes) -> Change:
    node, st = directory.nodes.look(parent, name)
    directory.data_fd(node)
    node.lookups += 1
    node.opens += 1
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
    directory.outgoing.bound(node)
    frame = wire.Tmpfile(path, st.st_mode, st.st_uid, st.st_gid, st.st_mtime_ns)
    entry = abi.pack_entry(node.id, st, directory.cache_seconds)
    return node.id, frame, entry + reading.open_answer(directory)


def mknod(directory: Directory, header: abi.Header, body: bytes) -> Change:
    mode, device, umask, _ = abi.MKNOD_IN.unpack_from(body)
    name, _ = abi.name_in(body, abi.MKNOD_IN.size)
    parent = directory.nodes.get(header.node)
    path = directory.nodes.child_path(parent, name)
    os.umask(umask)
    try:
        os.mknod(name, mode, abi.user_device(device), dir_fd=parent.fd)
    except FileExistsError:
        if not (_resent(header) and _is_there(parent, name, stat.S_IFMT(mode))):
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
    os.umask(umask)
    try:
        os.mkdir(name, stat.S_IMODE(mode), dir_fd=parent.fd)
    except FileExistsError:
        if not (_resent(header) and _is_there(parent, name, stat.S_IFDIR)):
            raise
    _, frame, entry = _made(directory, header, parent, name, path)
    return 0, frame, entry


def symlink(directory: Directory, header: abi.Header, body: bytes) -> Change:
    name, at = abi.name_in(body)
    target, _ = abi.name_in(body, at)
    parent = directory.nodes.get(header.node)
    path = directory.nodes.child_path(parent, name)
    try:
        os.symlink(target, name, dir_fd=parent.fd)
    except FileExistsError:
        if not (_resent(header) and _is_there(parent, name, stat.S_IFLNK)):
            raise
    _, frame, entry = _made(directory, header, parent, name, path, target)
    return 0, frame, entry


def unlink(directory: Directory, header: abi.Header, body: bytes) -> Change:
    return _unlinked(directory, header, body, is_directory=False)


def rmdir(directory: Directory, header: abi.Header, body: bytes) -> Change:
    return _unlinked(directory, header, body, is_directory=True)


def _unlinked(
    directory: Directory, header: abi.Header, body: bytes, *, is_directory: bool
) -> Change:
    name, _ = abi.name_in(body)
    nodes = directory.nodes
    parent = nodes.get(header.node)
    path = nodes.child_path(parent, name)
    try:
        node = nodes.find(os.stat(name, dir_fd=parent.fd, follow_symlinks=False))
        if is_directory:
            os.rmdir(name, dir_fd=parent.fd)
        else:
            os.unlink(name, dir_fd=parent.fd)
    except FileNotFoundError:
        if not _resent(header):
            raise
        node = None
    if node is not None:
        nodes.remove_name(node, parent, name)
    return 0, wire.Remove(path, int(is_directory), _parent_mtime(parent)), b""


def rename(directory: Directory, header: abi.Header, body: bytes) -> Change:
    (new_parent,) = abi.RENAME_IN.unpack_from(body)
    return _renamed(directory, header, body[abi.RENAME_IN.size :], new_parent, 0)


def rename2(directory: Directory, header: abi.Header, body: bytes) -> Change:
    new_parent, flags, _ = abi.RENAME2_IN.unpack_from(body)
    return _renamed(directory, header, body[abi.RENAME2_IN.size :], new_parent, flags)


def _renamed(
    directory: Directory, header: abi.Header, names: bytes, new_parent_id: int, flags: int
) -> Change:
    old, at = abi.name_in(names)
    new, _ = abi.name_in(names, at)
    nodes = directory.nodes
    old_parent, new_parent = nodes.get(header.node), nodes.get(new_parent_id)
    old_path = nodes.child_path(old_parent, old)
    new_path = nodes.child_path(new_parent, new)
    if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE):
        raise OSError(errno.EINVAL, "unsupported rename flag")
    try:
        moved_st = os.stat(old, dir_fd=old_parent.fd, follow_symlinks=False)
    except FileNotFoundError:
        if _resent(header) and not flags & RENAME_EXCHANGE:
            return 0, None, b""
        raise
    moved, replaced = nodes.find(moved_st), None
    with contextlib.suppress(FileNotFoundError):
        replaced_st = os.stat(new, dir_fd=new_parent.fd, follow_symlinks=False)
        replaced = nodes.find(replaced_st)
        if os.path.samestat(moved_st, replaced_st) and not flags & RENAME_NOREPLACE:
            return 0, None, b""  # two names of one inode: rename(2) does nothing
    with _announced(nodes, moved, new_parent, new):
        _hotpath.renameat2(old_parent.fd, old, new_parent.fd, new, flags)
    if moved is not None:
        nodes.remove_name(moved, old_parent, old)
    if replaced is not None:
        nodes.remove_name(replaced, new_parent, new)
        if flags & RENAME_EXCHANGE:
            nodes.add_name(replaced, old_parent, old)
    if moved is not None:
        nodes.add_name(moved, new_parent, new)
    directory.outgoing.moved(directory, new_parent, new)
    if flags & RENAME_EXCHANGE:
        directory.outgoing.moved(directory, old_parent, old)
    frame = wire.Rename(
        old_path, new_path, flags, _parent_mtime(old_parent), _parent_mtime(new_parent)
    )
    return 0, frame, b""


@contextlib.contextmanager
def _announced(nodes: NodeTable, moved: Node | None, parent: Node, name: bytes) -> Iterator[None]:
    """Write the new name down before it is true: a restart finds one of the two."""
    if moved is not None:
        nodes.will_be_named(moved, parent, name)
    try:
        yield
    except OSError:
        if moved is not None:
            nodes.will_not_be_named(moved, parent, name)
        raise


def link(directory: Directory, header: abi.Header, body: bytes) -> Change:
    (source_id,) = abi.LINK_IN.unpack_from(body)
    name, _ = abi.name_in(body, abi.LINK_IN.size)
    nodes, outgoing = directory.nodes, directory.outgoing
    source, parent = nodes.get(source_id), nodes.get(header.node)
    path = nodes.child_path(parent, name)
    source_path = nodes.path(source)
    known = source_path is not None or outgoing.is_bound(source)
    if not known and outgoing.phase is Phase.SYNCED:
        raise OSError(errno.EIO, "the peer does not have this file")
    try:
        os.link(source.magic, name, dst_dir_fd=parent.fd, follow_symlinks=True)
    except FileExistsError:
        if not _resent(header):
            raise
    st = os.fstat(source.fd)
    nodes.add_name(source, parent, name)
    source.lookups += 1
    source.nameless = False
    outgoing.moved(directory, parent, name)
    entry = abi.pack_entry(source.id, st, directory.cache_seconds)
    if not known:  # a resync takes it along
        directory.hot.set_bound(source.id, 0)
        return 0, None, entry
    frame = wire.Link(source_path or b"", path, _parent_mtime(parent))
    return source.id if outgoing.is_bound(source) else 0, frame, entry


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


def setattr_(directory: Directory, header: abi.Header, body: bytes) -> Change:
    fields = abi.SETATTR_IN.unpack_from(body)
    valid, size = Valid(fields[0] & 0xFFF), fields[3]
    node = directory.nodes.get(header.node)
    address = _address(directory, node)
    _set_owner(node, valid, fields[13], fields[14])
    if valid & Valid.MODE:
        os.chmod(node.magic, stat.S_IMODE(fields[11]))
    if valid & Valid.SIZE:
        os.truncate(node.magic, size)
    if valid & Valid.KILL_SUIDGID:
        _kill_suidgid(node)
    _set_times(node, valid, fields)
    st = os.fstat(node.fd)
    answer = abi.pack_attr_out(st, directory.cache_seconds)
    if address is None:
        return 0, None, answer
    return address[0], _results(address[1], valid, st), answer


def _set_owner(node: Node, valid: Valid, uid: int, gid: int) -> None:
    if valid & (Valid.UID | Valid.GID):
        os.chown(node.magic, uid if valid & Valid.UID else -1, gid if valid & Valid.GID else -1)


def _kill_suidgid(node: Node) -> None:
    mode = stat.S_IMODE(os.fstat(node.fd).st_mode)
    kept = mode & ~stat.S_ISUID
    if kept & stat.S_IXGRP:
        kept &= ~stat.S_ISGID
    if kept != mode:
        os.chmod(node.magic, kept)


def _set_times(node: Node, valid: Valid, fields: tuple[int, ...]) -> None:
    if not valid & (Valid.ATIME | Valid.MTIME):
        return
    atime = fields[5] * 1_000_000_000 + fields[8] if valid & Valid.ATIME else None
    mtime = fields[6] * 1_000_000_000 + fields[9] if valid & Valid.MTIME else None
    if valid & (Valid.ATIME_NOW | Valid.MTIME_NOW):
        now = time.time_ns()
        atime = now if valid & Valid.ATIME_NOW else atime
        mtime = now if valid & Valid.MTIME_NOW else mtime
    _hotpath.set_times(node.fd, atime, mtime)


def _results(path: bytes, valid: Valid, st: os.stat_result) -> wire.Setattr:
    if valid & (Valid.UID | Valid.GID | Valid.KILL_SUIDGID) and not stat.S_ISLNK(st.st_mode):
        valid |= Valid.MODE
    if valid & Valid.SIZE:
        valid |= Valid.MTIME
    return wire.Setattr(
        path,
        valid,
        st.st_mode,
        st.st_uid,
        st.st_gid,
        st.st_size,
        st.st_atime_ns if valid & Valid.ATIME else wire.NO_TIME,
        st.st_mtime_ns if valid & Valid.MTIME else wire.NO_TIME,
    )


def fallocate(directory: Directory, header: abi.Header, body: bytes) -> Change:
    _, offset, length, mode, _ = abi.FALLOCATE_IN.unpack_from(body)
    node = directory.nodes.get(header.node)
    fd = directory.data_fd(node)
    bound = directory.outgoing.bind(directory, node)
    _hotpath.fallocate(fd, mode, offset, length)
    frame = wire.Fallocate(mode, offset, length, os.fstat(fd).st_mtime_ns)
    return node.id, frame if bound else None, b""


def setxattr(directory: Directory, header: abi.Header, body: bytes) -> Change:
    size, flags, special, _ = abi.SETXATTR_IN.unpack_from(body)
    name, at = abi.name_in(body, abi.SETXATTR_IN.size)
    value = body[at : at + size]
    node = directory.nodes.get(header.node)
    address = _address(directory, node)
    try:
        os.setxattr(node.magic, name, value, flags)
    except FileExistsError:
        if not _resent(header):
            raise
    frame = wire.Setxattr(address[1], name, value) if address else None
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
    try:
        os.removexattr(node.magic, name)
    except OSError as err:
        if err.errno != errno.ENODATA or not _resent(header):
            raise
    if address is None:
        return 0, None, b""
    return address[0], wire.Removexattr(address[1], name), b""


def _served_apart(directory: Directory, header: abi.Header, body: bytes) -> Change:
    raise AssertionError("fsyncdir waits outside the namespace mutex")


HANDLERS: dict[int, Handler] = {
    abi.Op.CREATE: create,
    abi.Op.TMPFILE: tmpfile,
    abi.Op.MKNOD: mknod,
    abi.Op.MKDIR: mkdir,
    abi.Op.SYMLINK: symlink,
    abi.Op.UNLINK: unlink,
    abi.Op.RMDIR: rmdir,
    abi.Op.RENAME: rename,
    abi.Op.RENAME2: rename2,
    abi.Op.LINK: link,
    abi.Op.SETATTR: setattr_,
    abi.Op.SETXATTR: setxattr,
    abi.Op.REMOVEXATTR: removexattr,
    abi.Op.FALLOCATE: fallocate,
    abi.Op.FSYNCDIR: _served_apart,
}
