# SPDX-License-Identifier: Apache-2.0
"""The kernel's FUSE protocol (linux/fuse.h): numbers and layouts that Python needs.

READ, WRITE and FSYNC are spoken in C; what is here serves all other requests.
"""

from __future__ import annotations

import os
import struct
from enum import IntEnum, IntFlag
from typing import NamedTuple

ROOT_ID = 1
MAX_WRITE = 1024 * 1024
MAX_PAGES = MAX_WRITE // 4096
MINOR_SPOKEN = 38
RESENT = 1 << 63
"""Set by us in `unique` of a request that a former process may have carried out (inflight.c)."""


class Op(IntEnum):
    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    CREATE = 35
    DESTROY = 38
    BATCH_FORGET = 42
    FALLOCATE = 43
    RENAME2 = 45
    LSEEK = 46
    SYNCFS = 50
    TMPFILE = 51


class Init(IntFlag):
    """Capabilities of INIT; those above bit 31 travel in `flags2`."""

    ASYNC_READ = 1 << 0
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    ASYNC_DIO = 1 << 15
    WRITEBACK_CACHE = 1 << 16
    PARALLEL_DIROPS = 1 << 18
    POSIX_ACL = 1 << 20
    MAX_PAGES = 1 << 22
    EXPLICIT_INVAL_DATA = 1 << 25
    HANDLE_KILLPRIV_V2 = 1 << 28
    SETXATTR_EXT = 1 << 29
    INIT_EXT = 1 << 30


WANTED = (
    Init.ASYNC_READ
    | Init.BIG_WRITES
    | Init.DONT_MASK  # the umask is applied by the backing file system, default ACLs first
    | Init.ASYNC_DIO
    | Init.PARALLEL_DIROPS
    | Init.POSIX_ACL
    | Init.MAX_PAGES
    | Init.EXPLICIT_INVAL_DATA  # AUTO_INVAL_DATA drops the page cache after our own writes
    | Init.HANDLE_KILLPRIV_V2  # else a GETXATTR(security.capability) before every write
    | Init.SETXATTR_EXT
    | Init.INIT_EXT
)


class Valid:
    """Which fields of a SETATTR count: bits.

    Plain numbers: each time that two of an IntFlag meet costs more than a microsecond, and
    they meet some fifteen times in a request.
    """

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    ATIME_NOW = 1 << 7
    MTIME_NOW = 1 << 8
    KILL_SUIDGID = 1 << 11


FOPEN_DIRECT_IO = 1 << 0
FOPEN_KEEP_CACHE = 1 << 1
SETXATTR_ACL_KILL_SGID = 1 << 0

RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
ACL_ACCESS = "system.posix_acl_access"

NOTIFY_INVAL_INODE = 2
NOTIFY_INVAL_ENTRY = 3
NOTIFY_STORE = 4

IN_HEADER = struct.Struct("<IIQQIIIHH")
OUT_HEADER = struct.Struct("<IiQ")
ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
ENTRY_HEAD = struct.Struct("<QQQQII")
ATTR_HEAD = struct.Struct("<QII")
INIT_IN = struct.Struct("<IIII")
INIT_OUT = struct.Struct("<IIIIHHIIHHI28x")
OPEN_IN = struct.Struct("<II")
OPEN_OUT = struct.Struct("<QII")
CREATE_IN = struct.Struct("<IIII")
MKNOD_IN = struct.Struct("<IIII")
MKDIR_IN = struct.Struct("<II")
RENAME_IN = struct.Struct("<Q")
RENAME2_IN = struct.Struct("<QII")
LINK_IN = struct.Struct("<Q")
SETATTR_IN = struct.Struct("<IIQQQqqqIIIIIIII")
SETXATTR_IN = struct.Struct("<IIII")
SETXATTR_COMPAT_IN = struct.Struct("<II")
GETXATTR_IN = struct.Struct("<II")
READ_IN = struct.Struct("<QQIIQII")
WRITE_IN = READ_IN
RELEASE_IN = struct.Struct("<QIIQ")
FSYNC_IN = struct.Struct("<QII")
FALLOCATE_IN = struct.Struct("<QQQII")
LSEEK_IN = struct.Struct("<QqII")
FORGET_IN = struct.Struct("<Q")
FORGET_ONE = struct.Struct("<QQ")
BATCH_FORGET_IN = struct.Struct("<II")
STATFS_OUT = struct.Struct("<QQQQQIIII24x")
DIRENT = struct.Struct("<QQII")
INVAL_INODE = struct.Struct("<Qqq")
INVAL_ENTRY = struct.Struct("<QII")
STORE = struct.Struct("<QQII")


class Header(NamedTuple):
    """What stands before every request."""

    length: int
    opcode: int
    unique: int
    node: int
    uid: int
    gid: int
    pid: int
    extension: int
    padding: int


def pack_attributes(st: os.stat_result) -> bytes:
    """A `struct fuse_attr`."""
    atime, mtime, ctime = st.st_atime_ns, st.st_mtime_ns, st.st_ctime_ns
    billion = 1_000_000_000
    return ATTR.pack(
        st.st_ino,
        st.st_size,
        st.st_blocks,
        (atime // billion) & 0xFFFF_FFFF_FFFF_FFFF,
        (mtime // billion) & 0xFFFF_FFFF_FFFF_FFFF,
        (ctime // billion) & 0xFFFF_FFFF_FFFF_FFFF,
        atime % billion,
        mtime % billion,
        ctime % billion,
        st.st_mode,
        st.st_nlink,
        st.st_uid,
        st.st_gid,
        kernel_device(st.st_rdev),
        st.st_blksize,
        0,
    )


def kernel_device(device: int) -> int:
    """The kernel's 32-bit encoding (new_encode_dev) of a device number."""
    major, minor = os.major(device), os.minor(device)
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


def user_device(device: int) -> int:
    """The inverse of `kernel_device`."""
    return os.makedev((device & 0xFFF00) >> 8, (device & 0xFF) | ((device >> 12) & 0xFFF00))


def pack_entry(node: int, st: os.stat_result, seconds: int) -> bytes:
    """A `struct fuse_entry_out` that the kernel may cache for so many seconds."""
    return ENTRY_HEAD.pack(node, 0, seconds, seconds, 0, 0) + pack_attributes(st)


def pack_attr_out(st: os.stat_result, seconds: int) -> bytes:
    """A `struct fuse_attr_out`."""
    return ATTR_HEAD.pack(seconds, 0, 0) + pack_attributes(st)


def pack_dirent(inode: int, offset: int, name: bytes, kind: int) -> bytes:
    """A `struct fuse_dirent`, padded to 8 bytes."""
    record = DIRENT.pack(inode, offset, len(name), kind) + name
    return record + bytes(-len(record) % 8)


def name_in(body: bytes, offset: int = 0) -> tuple[bytes, int]:
    """The NUL-terminated name at `offset`, and where the next one begins."""
    end = body.index(b"\0", offset)
    return body[offset:end], end + 1
