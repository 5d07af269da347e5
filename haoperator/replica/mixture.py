# SPDX-License-Identifier: Apache-2.0
"""Changes to a tree that is a mixture: a resync is under way, and has not been everywhere.

What the primary did to names that the standby has is done; the way for it is made where
directories are missing or names are taken by what is from before. What the standby does
not have, the walk of the resync brings.
"""

from __future__ import annotations

import contextlib
import os
import stat

from haoperator.replica import frames
from haoperator.replica._hotpath import renameat2
from haoperator.replica.abi import RENAME_EXCHANGE
from haoperator.replica.beneath import checked, open_beneath, opened, parent_of, remove_tree
from haoperator.replica.marks import Kind


def rename_in_a_mixture(root: int, rename: frames.Rename) -> None:
    """A rename where the walk may not have passed yet: what is there gets its new name.

    What is not there was not walked, and the walk comes to its new name. What it
    replaced is gone on the primary, so it goes here.
    """
    old, new = rename.old, rename.new
    exchange = bool(rename.flags & RENAME_EXCHANGE)
    if exchange and is_there(root, old) and is_there(root, new):
        _move(root, old, new, RENAME_EXCHANGE)
    elif is_there(root, old):
        make_way(root, new)
        _move(root, old, new, 0)
    elif exchange and is_there(root, new):
        make_way(root, old)
        _move(root, new, old, 0)
    elif not exchange and is_there(root, new):
        with parent_of(root, new) as (parent, name):
            remove_tree(parent, name)


def follow_hint(root: int, hint: frames.Hint) -> None:
    """What the primary did while this side was away, if it is still to be done.

    It saves copying; whatever it leads to is compared wholly.
    """
    old, new = hint.old, hint.new
    if hint.kind == Kind.LINKED:
        if is_there(root, old) and not is_there(root, new):
            with opened(root, old) as source, parent_of(root, new) as (parent, name):
                os.link(f"/proc/self/fd/{source}", name, dst_dir_fd=parent, follow_symlinks=True)
    elif hint.flags & RENAME_EXCHANGE:
        if is_there(root, old) and is_there(root, new):
            _move(root, old, new, RENAME_EXCHANGE)
    elif is_there(root, old):
        make_way(root, new)
        _move(root, old, new, 0)


def _move(root: int, old: bytes, new: bytes, flags: int) -> None:
    with parent_of(root, old) as (old_parent, one), parent_of(root, new) as (new_parent, other):
        renameat2(old_parent, one, new_parent, other, flags)


def is_there(root: int, path: bytes) -> bool:
    """Whether there is anything at `path`. Raises Rubbish for a path that no primary sends."""
    try:
        with parent_of(root, path) as (parent, name):
            os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError:
        return False
    return True


def make_way(root: int, path: bytes) -> None:
    """Before something is put at `path`: the directories above it are there, it is not."""
    above = b""
    *parts, name = checked(path).split(b"/")
    for part in parts:
        parent = open_beneath(root, above, os.O_RDONLY | os.O_DIRECTORY)
        above = above + b"/" + part if above else part
        try:
            st = None
            with contextlib.suppress(FileNotFoundError):
                st = os.stat(part, dir_fd=parent, follow_symlinks=False)
            if st is None or not stat.S_ISDIR(st.st_mode):
                remove_tree(parent, part)
                os.mkdir(part, 0o700, dir_fd=parent)
        finally:
            os.close(parent)
    parent = open_beneath(root, above, os.O_RDONLY | os.O_DIRECTORY)
    try:
        remove_tree(parent, name)
    finally:
        os.close(parent)
