# SPDX-License-Identifier: Apache-2.0
"""What one name in a backing directory is, as the two copies compare it.

Times of access and of change (atime, ctime) are not compared: they are each side's own.
The size of what is no regular file is the file system's own affair, and so is the number
of links of a directory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import zlib
from _blake2 import blake2b
from collections.abc import Iterator

from haoperator.replica.frames import Seen
from haoperator.replica.hashing import HASH_BYTES


def see(directory: int, name: bytes) -> Seen:
    """What `name` is in an open directory; `.` is the directory itself. Raises OSError."""
    st = os.stat(name, dir_fd=directory, follow_symlinks=False)
    kind = stat.S_IFMT(st.st_mode)
    return Seen(
        name,
        st.st_mode,
        st.st_uid,
        st.st_gid,
        1 if kind == stat.S_IFDIR else st.st_nlink,
        st.st_ino,
        st.st_rdev if kind in (stat.S_IFBLK, stat.S_IFCHR) else 0,
        st.st_size if kind == stat.S_IFREG else 0,
        st.st_mtime_ns,
        os.readlink(name, dir_fd=directory) if kind == stat.S_IFLNK else b"",
        _digest_of_xattrs(b"/proc/self/fd/%d/%s" % (directory, name)),
    )


def see_if_there(directory: int, name: bytes) -> Seen | None:
    """The same, None where nothing is or nothing can be known."""
    with contextlib.suppress(OSError):
        return see(directory, name)
    return None


def open_to_read(found: int) -> int:
    """The file that an O_PATH descriptor, taken over, was opened on, to be read.

    Raises FileNotFoundError for what is no regular file, without having opened it: a device
    may not like that, and a fifo or a socket means only that the name was taken by another.
    """
    try:
        if not stat.S_ISREG(os.fstat(found).st_mode):
            raise FileNotFoundError(errno.ENOENT, "not a regular file any more")
        return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NOATIME | os.O_CLOEXEC)
    finally:
        os.close(found)


def names_in(directory: int, share: int, shares: int) -> Iterator[bytes]:
    """The names in an open directory that are dealt to this share. Raises OSError.

    Both sides deal alike, so that a large directory is compared in pieces that fit in memory.
    """
    with os.scandir(directory) as entries:
        for entry in entries:
            name = os.fsencode(entry.name)
            if shares < 2 or zlib.crc32(name) % shares == share:
                yield name


def _digest_of_xattrs(path: bytes) -> bytes:
    names = sorted(os.listxattr(path, follow_symlinks=False))
    if not names:
        return b""
    digest = blake2b(digest_size=HASH_BYTES)
    for name in names:
        value = os.getxattr(path, name, follow_symlinks=False)
        digest.update(b"%s\0%d\0" % (os.fsencode(name), len(value)))
        digest.update(value)
    return digest.digest()
