# SPDX-License-Identifier: Apache-2.0
"""Paths that the peer names, opened so that they cannot leave the directory.

Every open goes through openat2(2) with RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS: no
"..", no absolute path, no symbolic link on the way, whatever the tree looks like.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from haoperator.replica._hotpath import openat2
from haoperator.replica.wire import Rubbish

RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
LONGEST = 4000
"""Longer paths are walked in pieces: the kernel's limit is 4,096 with the NUL."""


def open_beneath(root: int, path: bytes, flags: int) -> int:
    """Open `path` below the directory `root`; the empty path is the directory itself.

    A symbolic link at the end is opened only as such (O_PATH | O_NOFOLLOW).
    Raises OSError.
    """
    checked(path)
    at = os.dup(root) if len(path) > LONGEST else -1
    try:
        while len(path) > LONGEST:
            cut = path.rindex(b"/", 0, LONGEST)
            step = openat2(
                at,
                path[:cut],
                os.O_PATH | os.O_DIRECTORY,
                0,
                RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
            )
            os.close(at)
            at, path = step, path[cut + 1 :]
        return openat2(
            root if at < 0 else at, path or b".", flags, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
        )
    finally:
        if at >= 0:
            os.close(at)


@contextmanager
def parent_of(root: int, path: bytes) -> Iterator[tuple[int, bytes]]:
    """The directory that `path` lies in, open, and its name there."""
    above, _, name = path.rpartition(b"/")
    if not name or name in (b".", b".."):
        raise Rubbish("a path that names nothing in a directory")
    fd = open_beneath(root, above, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd, name
    finally:
        os.close(fd)


@contextmanager
def opened(root: int, path: bytes) -> Iterator[int]:
    """An O_PATH descriptor of whatever is at `path`."""
    fd = open_beneath(root, path, os.O_PATH | os.O_NOFOLLOW)
    try:
        yield fd
    finally:
        os.close(fd)


def checked(path: bytes) -> bytes:
    """The path, if it has the form that a primary sends. Raises Rubbish otherwise."""
    if b"\0" in path or path.startswith(b"/"):
        raise Rubbish("a path that no primary sends")
    if any(part in (b"", b".", b"..") or len(part) > 255 for part in path.split(b"/") if path):
        raise Rubbish("a path that no primary sends")
    return path


def checked_name(name: bytes) -> bytes:
    """The same for one name in a directory."""
    if b"/" in name or not name:
        raise Rubbish("a name that no primary sends")
    return checked(name)


def remove_tree(parent: int, name: bytes) -> None:
    """Remove a name and all below it, however deep, following nothing. Missing is fine."""
    levels: list[tuple[int, bytes, int, list[str]]] = []
    """From the top: where it lies, its name, its descriptor, what is still in it."""
    try:
        if not _unlinked(parent, name):
            levels.append(_level(parent, name))
        while levels:
            above, own, fd, left = levels[-1]
            if left:
                below = os.fsencode(left.pop())
                if not _unlinked(fd, below):
                    levels.append(_level(fd, below))
            else:
                levels.pop()
                os.close(fd)
                os.rmdir(own, dir_fd=above)
    finally:
        for _, _, fd, _ in levels:
            os.close(fd)


def _unlinked(parent: int, name: bytes) -> bool:
    """False for a directory."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except OSError as err:
        if err.errno not in (errno.EISDIR, errno.EPERM):
            raise
        return False
    return True


def _level(parent: int, name: bytes) -> tuple[int, bytes, int, list[str]]:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=parent)
    return parent, name, fd, os.listdir(fd)
