# SPDX-License-Identifier: Apache-2.0
"""What two directory trees must have in common: everything but inode numbers, ctime, atime."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

from tests.replica.pair import wait_for

Tree = dict[str, tuple[Any, ...]]


def tree_of(root: Path, *, times: bool = True) -> Tree:
    """Path → kind, mode, owner, content or target, xattrs, mtime, and its hard links."""
    tree: Tree = {}
    links: dict[tuple[int, int], list[str]] = {}
    base = os.fspath(root) + "/"
    names = [""]
    for where, directories, files in os.walk(base):
        for name in directories + files:
            names.append(os.path.join(where, name)[len(base) :])
    for name in names:
        path = base + name
        st = os.lstat(path)
        kind = stat.S_IFMT(st.st_mode)
        content: Any = None
        if kind == stat.S_IFREG:
            with open(path, "rb") as file:
                content = (st.st_size, hashlib.file_digest(file, "sha256").hexdigest())
        elif kind == stat.S_IFLNK:
            content = os.readlink(path)
        elif kind in (stat.S_IFBLK, stat.S_IFCHR):
            content = st.st_rdev
        if kind != stat.S_IFDIR and st.st_nlink > 1:
            links.setdefault((st.st_dev, st.st_ino), []).append(name)
        magic = path or "."
        xattrs = {x: os.getxattr(magic, x, follow_symlinks=False) for x in _xattrs(magic)}
        mtime = st.st_mtime_ns if times else None
        tree[name] = (kind, st.st_mode, st.st_uid, st.st_gid, content, xattrs, mtime)
    for group in links.values():
        for name in group:
            tree[name] += (tuple(sorted(group)),)
    return tree


def _xattrs(path: str) -> list[str]:
    return sorted(os.listxattr(path, follow_symlinks=False))


def differences(one: Tree, other: Tree) -> list[str]:
    found = []
    for name in sorted(one.keys() | other.keys()):
        if one.get(name) != other.get(name):
            found.append(f"{name or '.'}:\n  {one.get(name)}\n  {other.get(name)}")
    return found


def assert_equal_trees(one: Path, other: Path, *, times: bool = True, seconds: float = 3.0) -> None:
    """Equal, once the peer has had a moment to set the times."""
    try:
        wait_for(lambda: tree_of(one, times=times) == tree_of(other, times=times), "equal", seconds)
    except AssertionError:
        found = differences(tree_of(one, times=times), tree_of(other, times=times))
        raise AssertionError("the trees differ:\n" + "\n".join(found[:10])) from None
