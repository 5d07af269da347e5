# SPDX-License-Identifier: Apache-2.0
"""The requests that change nothing. They are served in every role and state."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from haoperator.replica import abi, sizes

if TYPE_CHECKING:
    from haoperator.replica.directory import Directory
    from haoperator.replica.nodes import Node

Handler = Callable[["Directory", abi.Header, bytes], bytes | None]
"""Returns the answer, None where there is none to give. Raises OSError."""

CAP_SYS_ADMIN = 21
WRITING = (os.O_WRONLY, os.O_RDWR)
DirectoryEntry = tuple[bytes, int, int]

log = logging.getLogger(__name__)


class Listings:
    """What open directory handles show: the names at the time of the opening or rewinding.

    Handles of a former process are still in use: numbers begin where none of them are.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = int.from_bytes(os.urandom(6), "little")
        self._listings: dict[int, list[DirectoryEntry]] = {}

    def open(self) -> int:
        with self._lock:
            self._last += 1
            return self._last

    def get(self, handle: int) -> list[DirectoryEntry] | None:
        return self._listings.get(handle)

    def put(self, handle: int, entries: list[DirectoryEntry]) -> None:
        self._listings[handle] = entries

    def close(self, handle: int) -> None:
        self._listings.pop(handle, None)


def init(directory: Directory, header: abi.Header, body: bytes) -> bytes:
    major, minor, readahead, flags = abi.INIT_IN.unpack_from(body)
    if major != 7 or minor < 31:
        raise OSError(errno.EPROTO, "the kernel's FUSE is too old")
    offered = flags
    if flags & abi.Init.INIT_EXT:
        offered |= int.from_bytes(body[16:20], "little") << 32
    wanted = abi.WANTED
    if directory.may_cache_writes:
        wanted |= abi.Init.WRITEBACK_CACHE
    agreed = offered & wanted
    directory.agreed(minor, caches_writes=bool(agreed & abi.Init.WRITEBACK_CACHE))
    return abi.INIT_OUT.pack(
        7,
        min(minor, abi.MINOR_SPOKEN),
        readahead,
        agreed & 0xFFFF_FFFF,
        64,
        48,
        abi.MAX_WRITE,
        1,
        abi.MAX_PAGES,
        0,
        agreed >> 32,
    )


def lookup(directory: Directory, header: abi.Header, body: bytes) -> None:
    name, _ = abi.name_in(body)
    with directory.namespace:
        node, st = sizes.look(directory, directory.nodes.get(header.node), name)
        node.lookups += 1
        # Under the mutex: who changes the role and then tells the kernel to forget comes later.
        directory.answer(header, 0, abi.pack_entry(node.id, st, directory.cache_seconds))
    directory.crowd.joined(len(directory.nodes))


def forget(directory: Directory, header: abi.Header, body: bytes) -> None:
    _forget(directory, [(header.node, abi.FORGET_IN.unpack_from(body)[0])])


def batch_forget(directory: Directory, header: abi.Header, body: bytes) -> None:
    count, _ = abi.BATCH_FORGET_IN.unpack_from(body)
    size = abi.FORGET_ONE.size
    forgotten = body[abi.BATCH_FORGET_IN.size :][: count * size]
    _forget(directory, list(abi.FORGET_ONE.iter_unpack(forgotten)))


def _forget(directory: Directory, forgotten: list[tuple[int, int]]) -> None:
    with directory.namespace:
        for node_id, lookups in forgotten:
            node = directory.nodes.known(node_id)
            if node is not None:
                directory.nodes.forget(node, lookups)
    directory.hot.flush()  # an UNBIND may have been appended


def getattr_(directory: Directory, header: abi.Header, body: bytes) -> bytes:
    node = directory.nodes.get(header.node)
    return abi.pack_attr_out(os.fstat(node.fd), directory.cache_seconds)


def readlink(directory: Directory, header: abi.Header, body: bytes) -> bytes:
    return os.readlink(b"", dir_fd=directory.nodes.get(header.node).fd)


def open_(directory: Directory, header: abi.Header, body: bytes) -> bytes:
    flags, _ = abi.OPEN_IN.unpack_from(body)
    with directory.namespace:
        accepts_writers, nodes = directory.accepts_writers, directory.nodes
        if writes(flags) and not accepts_writers:
            raise OSError(errno.EROFS, "standby")
        node = nodes.current(header.node) if accepts_writers else nodes.get(header.node)
        directory.data_fd(node)
        node.opens += 1
        node.writers += writes(flags)
        if directory.caches_writes and not accepts_writers:
            directory.opened_to_read.add(node)
        return open_answer(directory)


def writes(flags: int) -> bool:
    """Whether these flags of open(2) allow writing."""
    return flags & os.O_ACCMODE in WRITING


def open_answer(directory: Directory) -> bytes:
    """On the standby, contents change below the kernel: no page cache there."""
    return abi.OPEN_OUT.pack(
        0, abi.FOPEN_KEEP_CACHE if directory.accepts_writers else abi.FOPEN_DIRECT_IO, 0
    )


def release(directory: Directory, header: abi.Header, body: bytes) -> bytes:
    _, flags, _, _ = abi.RELEASE_IN.unpack_from(body)
    with directory.namespace:
        node = directory.nodes.known(header.node)
        if node is not None and node.opens:
            node.opens -= 1
            node.writers -= writes(flags) and node.writers > 0
            if node.opens == 0:
                directory.close_data_fd(node)
    return b""


def opendir(directory: Directory, header: abi.Header, body: bytes) -> bytes:
    directory.nodes.get(header.node)
    return abi.OPEN_OUT.pack(directory.listings.open(), 0, 0)


def releasedir(directory: Directory, header: abi.Header, body: bytes) -> bytes:
    directory.listings.close(abi.RELEASE_IN.unpack_from(body)[0])
    return b""


_KINDS = {
    stat.S_IFDIR: 4,
    stat.S_IFREG: 8,
    stat.S_IFLNK: 10,
    stat.S_IFIFO: 1,
    stat.S_IFCHR: 2,
    stat.S_IFBLK: 6,
    stat.S_IFSOCK: 12,
}


def _kind(entry: os.DirEntry[bytes]) -> int:
    if entry.is_symlink():
        return 10
    if entry.is_file(follow_symlinks=False):
        return 8
    if entry.is_dir(follow_symlinks=False):
        return 4
    try:
        return _KINDS.get(stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode), 0)
    except OSError:
        return 0


def _list(directory: Directory, node: Node) -> list[DirectoryEntry]:
    inode = above = node.key[1]
    if node is not directory.nodes.root:  # what lies above the root is not ours to tell
        with contextlib.suppress(OSError):
            above = os.stat(b"..", dir_fd=node.fd).st_ino
    entries: list[DirectoryEntry] = [(b".", inode, 4), (b"..", above, 4)]
    with os.scandir(os.fsencode(node.magic)) as found:
        entries += [(entry.name, entry.inode(), _kind(entry)) for entry in found]
    return entries


def readdir(directory: Directory, header: abi.Header, body: bytes) -> bytes:
    handle, offset, size, *_ = abi.READ_IN.unpack_from(body)
    entries = directory.listings.get(handle)
    if entries is None or offset == 0:
        entries = _list(directory, directory.nodes.get(header.node))
        directory.listings.put(handle, entries)
    answer: list[bytes] = []
    for position in range(offset, len(entries)):
        name, inode, kind = entries[position]
        record = abi.pack_dirent(inode, position + 1, name, kind)
        size -= len(record)
        if size < 0:
            break
        answer.append(record)
    return b"".join(answer)


def getxattr(directory: Directory, header: abi.Header, body: bytes) -> bytes:
    size, _ = abi.GETXATTR_IN.unpack_from(body)
    name, _ = abi.name_in(body, abi.GETXATTR_IN.size)
    return _sized(os.getxattr(directory.nodes.get(header.node).magic, name), size)


def listxattr(directory: Directory, header: abi.Header, body: bytes) -> bytes:
    size, _ = abi.GETXATTR_IN.unpack_from(body)
    names = os.listxattr(directory.nodes.get(header.node).magic)
    if any(name.startswith("trusted.") for name in names) and not _may_administer(header):
        names = [name for name in names if not name.startswith("trusted.")]
    return _sized(b"".join(os.fsencode(name) + b"\0" for name in names), size)


def _may_administer(header: abi.Header) -> bool:
    """Whether the caller has CAP_SYS_ADMIN: who has not, is not shown `trusted` attributes."""
    if header.uid:
        return False
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{header.pid}/status").read_text(encoding="ascii", errors="replace")
        for line in status.splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> CAP_SYS_ADMIN & 1)
    return True


def _sized(value: bytes, size: int) -> bytes:
    if size == 0:
        return struct.pack("<II", len(value), 0)
    if len(value) > size:
        raise OSError(errno.ERANGE, "larger than asked for")
    return value


def statfs(directory: Directory, header: abi.Header, body: bytes) -> bytes:
    st = os.fstatvfs(directory.root_fd)
    return abi.STATFS_OUT.pack(
        st.f_blocks,
        st.f_bfree,
        st.f_bavail,
        st.f_files,
        st.f_ffree,
        st.f_bsize,
        st.f_namemax,
        st.f_frsize,
        0,
    )


def lseek(directory: Directory, header: abi.Header, body: bytes) -> bytes:
    """SEEK_DATA and SEEK_HOLE; the data path does not use the descriptor's position."""
    if directory.caches_writes:  # the kernel does not ask for data that it alone has: one extent
        raise OSError(errno.ENOSYS, "holes are not known")
    _, offset, whence, _ = abi.LSEEK_IN.unpack_from(body)
    with directory.namespace:
        fd = directory.data_fd(directory.nodes.get(header.node))
    return struct.pack("<Q", os.lseek(fd, offset, whence))


def nothing(directory: Directory, header: abi.Header, body: bytes) -> bytes:
    return b""


HANDLERS: dict[int, Handler] = {
    abi.Op.INIT: init,
    abi.Op.LOOKUP: lookup,
    abi.Op.FORGET: forget,
    abi.Op.BATCH_FORGET: batch_forget,
    abi.Op.GETATTR: getattr_,
    abi.Op.READLINK: readlink,
    abi.Op.OPEN: open_,
    abi.Op.RELEASE: release,
    abi.Op.OPENDIR: opendir,
    abi.Op.READDIR: readdir,
    abi.Op.RELEASEDIR: releasedir,
    abi.Op.GETXATTR: getxattr,
    abi.Op.LISTXATTR: listxattr,
    abi.Op.STATFS: statfs,
    abi.Op.LSEEK: lseek,
    abi.Op.DESTROY: nothing,
}
