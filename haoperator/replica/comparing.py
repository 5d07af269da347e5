# SPDX-License-Identifier: Apache-2.0
"""What differs between the two sides of one name. Pure."""

from __future__ import annotations

import stat

from haoperator.replica.difference import What
from haoperator.replica.frames import Seen

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "block device",
    stat.S_IFCHR: "character device",
}


def kind_of(seen: Seen) -> str:
    """In words."""
    return _KINDS.get(stat.S_IFMT(seen.mode), "unknown")


def same_kind(mine: Seen, theirs: Seen) -> bool:
    return stat.S_IFMT(mine.mode) == stat.S_IFMT(theirs.mode)


def alike(mine: Seen | None, theirs: Seen | None) -> bool:
    """Nothing differs."""
    return not compare(mine, theirs)


def compare(mine: Seen | None, theirs: Seen | None) -> list[tuple[What, str]]:
    """Each thing that differs, with both sides in words. None: there is no such name."""
    if mine is None and theirs is None:
        return []
    if theirs is None:
        assert mine is not None
        return [(What.MISSING, f"the {kind_of(mine)} is not on the standby")]
    if mine is None:
        return [(What.EXTRA, f"the {kind_of(theirs)} is on the standby only")]
    if not same_kind(mine, theirs):
        return [(What.KIND, f"{kind_of(mine)} here, {kind_of(theirs)} there")]
    return list(_attributes(mine, theirs))


def _attributes(mine: Seen, theirs: Seen) -> list[tuple[What, str]]:
    shown = [
        (What.SIZE, str(mine.size), str(theirs.size)),
        (What.MODE, f"{stat.S_IMODE(mine.mode):04o}", f"{stat.S_IMODE(theirs.mode):04o}"),
        (What.OWNER, f"{mine.uid}:{mine.gid}", f"{theirs.uid}:{theirs.gid}"),
        (What.MTIME, _time(mine.mtime_ns), _time(theirs.mtime_ns)),
        (What.TARGET, _text(mine.target), _text(theirs.target)),
        (What.DEVICE, str(mine.device), str(theirs.device)),
    ]
    found = [(what, f"{here} here, {there} there") for what, here, there in shown if here != there]
    if mine.xattrs != theirs.xattrs:
        found.append((What.XATTRS, "extended attributes differ"))
    return found


def _time(ns: int) -> str:
    """Seconds since 1970, all digits."""
    return f"{ns // 1_000_000_000}.{ns % 1_000_000_000:09d}"


def _text(target: bytes) -> str:
    return repr(target)[1:]
