# SPDX-License-Identifier: Apache-2.0
"""What is known of a branch of the data that lost a split brain, and was kept aside.

It lies beside the replicated directory, on the same file system:

    .haoperator-NAME-splitbrain/ID/
        about           which branch it is, JSON
        manifest        everything that was in it, one JSON object a line, until it is compared
        differences     what differs from the data that won, in the same form
        files/INODE     contents of regular files

Lines are in the order of a walk (walking.py).
"""

from __future__ import annotations

import base64
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

ABOUT, MANIFEST, DIFFERENCES, FILES = "about", "manifest", "differences", "files"


def beside(name: str) -> str:
    """The directory in which the branches of a replicated directory are, as seen from it."""
    return f"../.haoperator-{name}-splitbrain"


class What(StrEnum):
    """How a name of the branch stands to the data that won."""

    UNCOMPARED = "uncompared"
    CONTENT = "content"
    ATTRIBUTES = "attributes"
    """Content is the same, and was not kept."""
    ONLY_KEPT = "only-kept"
    ONLY_LIVE = "only-live"
    """Removed in the branch, or made in the other one: nothing was kept of it."""


@dataclass(frozen=True, slots=True)
class About:
    """One kept branch. `taken_at` is in seconds since the epoch, for people."""

    id: str
    generation: str
    yielded_to: str
    node: str
    peer: str
    taken_at: float

    def to_json(self) -> str:
        return json.dumps(asdict(self)) + "\n"

    @classmethod
    def from_json(cls, text: str) -> About:
        """Raises ValueError."""
        try:
            return cls(**json.loads(text))
        except TypeError as err:
            raise ValueError(f"not a kept branch: {err}") from err


@dataclass(frozen=True, slots=True)
class Entry:
    """One name of a branch. `inode` is that of the time when it was kept; `what` is set once it
    was compared."""

    path: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    inode: int
    size: int
    device: int
    target: bytes
    xattrs: dict[str, bytes]
    what: What = What.UNCOMPARED

    @property
    def kind(self) -> int:
        return stat.S_IFMT(self.mode)

    @property
    def regular(self) -> bool:
        return stat.S_ISREG(self.mode)

    @property
    def holds_content(self) -> bool:
        """Whether `files` has the content of this regular file."""
        return self.regular and self.what in (What.UNCOMPARED, What.CONTENT, What.ONLY_KEPT)

    def as_(self, what: What) -> Entry:
        return replace(self, what=what)

    def to_line(self) -> str:
        said = asdict(self)
        said["path"], said["target"] = os.fsdecode(self.path), os.fsdecode(self.target)
        said["xattrs"] = {name: base64.b64encode(v).decode() for name, v in self.xattrs.items()}
        return json.dumps(said) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Entry:
        """Raises ValueError."""
        try:
            said = json.loads(line)
            said["path"], said["target"] = os.fsencode(said["path"]), os.fsencode(said["target"])
            said["xattrs"] = {n: base64.b64decode(v) for n, v in said["xattrs"].items()}
            said["what"] = What(said["what"])
            return cls(**said)
        except (TypeError, KeyError, AttributeError) as err:
            raise ValueError(f"not an entry of a branch: {err!r}") from err


def entry_of(path: bytes, parent: int, name: bytes, st: os.stat_result) -> Entry:
    """What `name` in an open directory is. Raises OSError."""
    kind = stat.S_IFMT(st.st_mode)
    magic = b"/proc/self/fd/%d/%s" % (parent, name)
    return Entry(
        path,
        st.st_mode,
        st.st_uid,
        st.st_gid,
        st.st_mtime_ns,
        st.st_ino,
        st.st_size if kind == stat.S_IFREG else 0,
        st.st_rdev if kind in (stat.S_IFBLK, stat.S_IFCHR) else 0,
        os.readlink(name, dir_fd=parent) if kind == stat.S_IFLNK else b"",
        {
            each: os.getxattr(magic, each, follow_symlinks=False)
            for each in os.listxattr(magic, follow_symlinks=False)
        },
    )


def differing_attributes(one: Entry, other: Entry) -> list[str]:
    """Names of attributes in which two of one kind differ. The time of a directory tells only
    that something in it differs."""
    found = [
        name
        for name in ("mode", "uid", "gid", "xattrs")
        if getattr(one, name) != getattr(other, name)
    ]
    if not stat.S_ISDIR(one.mode) and one.mtime_ns != other.mtime_ns:
        found.append("mtime")
    return found


def entries(file: Path) -> Iterator[Entry]:
    """Raises OSError, ValueError."""
    with file.open(encoding="ascii") as lines:
        yield from map(Entry.from_line, lines)
