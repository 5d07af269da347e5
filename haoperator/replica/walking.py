# SPDX-License-Identifier: Apache-2.0
"""All names of a tree, in an order that two walks have in common."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple


class Found(NamedTuple):
    """A name in a directory that is open until the walk goes on; `path` is from the top."""

    path: bytes
    parent: int
    name: bytes
    st: os.stat_result

    @property
    def place(self) -> tuple[bytes, ...]:
        return place(self.path)


def place(path: bytes) -> tuple[bytes, ...]:
    """By these, paths are in the order of a walk."""
    return tuple(path.split(b"/")) if path else ()


def walk(root: int) -> Iterator[Found]:
    """The top itself, then each directory before what is in it, by name; other file systems
    are passed by, and so is what goes meanwhile. Raises OSError for what cannot be listed."""
    top = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
    levels = [(top, b"", _names(top))]
    try:
        here = os.fstat(top)
        yield Found(b"", top, b".", here)
        while levels:
            parent, above, left = levels[-1]
            if not left:
                levels.pop()
                os.close(parent)
                continue
            name = left.pop()
            with contextlib.suppress(FileNotFoundError):
                st = os.stat(name, dir_fd=parent, follow_symlinks=False)
                if st.st_dev != here.st_dev:
                    continue
                path = above + b"/" + name if above else name
                yield Found(path, parent, name, st)
                if stat.S_ISDIR(st.st_mode):
                    levels += _level(parent, path, name)
    finally:
        for fd, _, _ in levels:
            os.close(fd)


def _level(parent: int, path: bytes, name: bytes) -> list[tuple[int, bytes, list[bytes]]]:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(name, flags, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError):
        return []  # gone, or another kind of thing now
    return [(fd, path, _names(fd))]


def _names(directory: int) -> list[bytes]:
    """To be taken from the end."""
    return sorted(map(os.fsencode, os.listdir(directory)), reverse=True)
