# SPDX-License-Identifier: Apache-2.0
"""The frames of the replication stream, and what each means (wire.py lays them out).

Every frame has a header: length, type, directory, seq, node (see frames.h). `node` is the
primary's id of an inode, and 0 where there is none. Paths are bytes, relative to the
replicated directory, without a leading slash; the directory itself is the empty path.

WRITE, SYNCDATA, FSYNC, PING, ACK and SYNCED are spoken in C.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

NO_TIME = -(1 << 63)
"""Leave this time as it is."""
LATEST = (1 << 63) - 2
"""No time is later: April 2262. A file from after that is one from then at the peer."""
LISTING_PART = 512
"""Entries in one LISTING frame at most."""


class Type(IntEnum):
    PING = 1
    ACK = 2
    SYNCED = 3
    NACK = 4
    HASHES = 5
    MARKS = 6
    CHECKED = 8
    WRITE = 16
    SYNCDATA = 17
    FSYNC = 18
    BIND = 19
    UNBIND = 20
    MAKE = 21
    TMPFILE = 22
    LINK = 23
    REMOVE = 24
    RENAME = 25
    SETATTR = 26
    SETXATTR = 27
    REMOVEXATTR = 28
    FALLOCATE = 29
    LISTING = 32
    META = 33
    HASH = 34
    SYNCFS = 35
    HANDOVER = 36
    DONE = 37
    HINT = 38
    SETTLED = 39
    PROGRESS = 40
    CHECK = 48
    LOOK = 49
    SUM = 50


class Nack(NamedTuple):
    """Peer: a frame could not be applied; this copy is outdated from now on."""

    reason: bytes


class Hashes(NamedTuple):
    """Peer: the 16-byte hashes of the blocks that HASH (named by seq) asked for.

    They may end early: the file is shorter, or not there.
    """

    hashes: bytes


class Marks(NamedTuple):
    """Peer: what it noted of its own changes (marks.py), in parts; `last` is 1 in the last."""

    last: int
    marks: bytes


class Checked(NamedTuple):
    """Peer: what CHECK or LOOK (named by seq) found: packed `Seen`s. `last` 1 ends the answer."""

    last: int
    entries: bytes


class Seen(NamedTuple):
    """Everything about one name that both copies should have alike, but its content.

    `links` and `inode` are this side's own: they tell which names mean one file. `size` is
    0 for what is no regular file, `xattrs` a digest, empty for none.
    """

    name: bytes
    mode: int
    uid: int
    gid: int
    links: int
    inode: int
    device: int
    size: int
    mtime_ns: int
    target: bytes
    xattrs: bytes


class FsyncPath(NamedTuple):
    """Bring a directory (node 0) to disk; answered by SYNCED."""

    path: bytes


class Bind(NamedTuple):
    """From here on, `node` means the regular file at `path`."""

    path: bytes


class Unbind(NamedTuple):
    """`node` is not named again before another BIND."""


class Make(NamedTuple):
    """Something new at `path`, of the type in `mode`. A regular file is bound to `node`."""

    path: bytes
    mode: int
    uid: int
    gid: int
    device: int
    mtime_ns: int
    parent_mtime_ns: int
    target: bytes
    acl: bytes


class Tmpfile(NamedTuple):
    """A nameless regular file below the directory `path`, bound to `node`."""

    path: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int


class Link(NamedTuple):
    """A further name for `node` if it is bound, else for what is at `source`."""

    source: bytes
    path: bytes
    parent_mtime_ns: int


class Remove(NamedTuple):
    """unlink(2), or rmdir(2) where `directory` is 1."""

    path: bytes
    directory: int
    parent_mtime_ns: int


class Rename(NamedTuple):
    """renameat2(2) with its flags."""

    old: bytes
    new: bytes
    flags: int
    old_parent_mtime_ns: int
    new_parent_mtime_ns: int


class Setattr(NamedTuple):
    """The fields that `valid` (abi.Valid) names, of `node` if bound, else of `path`.

    The times are results, not requests: they hold for whatever changed them.
    """

    path: bytes
    valid: int
    mode: int
    uid: int
    gid: int
    size: int
    atime_ns: int
    mtime_ns: int


class Setxattr(NamedTuple):
    """An extended attribute of `node` if bound, else of `path`."""

    path: bytes
    name: bytes
    value: bytes


class Removexattr(NamedTuple):
    """An extended attribute of `node` if bound, else of `path`, is gone."""

    path: bytes
    name: bytes


class Fallocate(NamedTuple):
    """fallocate(2) on `node`, with its mode."""

    mode: int
    offset: int
    length: int
    mtime_ns: int


class Listing(NamedTuple):
    """A directory of the primary as it is now: the peer makes its own like it.

    `part` counts up from 0; the one with `last` 1 ends it, and only then are names
    removed that were in none. `entries` are packed `Entry`s.
    """

    path: bytes
    part: int
    last: int
    mtime_ns: int
    entries: bytes


class Entry(NamedTuple):
    """One name in a LISTING. `group` is the same for all names of one inode, 0: only one.

    `known` 1: the peer has it as it is, and what follows will not bring all of it.
    """

    name: bytes
    mode: int
    known: int
    device: int
    group: int
    target: bytes


class Meta(NamedTuple):
    """Everything about `path` but its content. `xattrs` are packed `Xattr`s: all of them."""

    path: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    xattrs: bytes


class Xattr(NamedTuple):
    """One extended attribute in a META."""

    name: bytes
    value: bytes


class Hash(NamedTuple):
    """Asks for the hashes of some blocks of `node` from `offset` on; answered by HASHES."""

    offset: int
    blocks: int


class Syncfs(NamedTuple):
    """Bring everything to disk; answered by SYNCED."""


class Handover(NamedTuple):
    """The primary demotes in order: nothing is missing, `token` proves it later."""

    token: bytes


class Done(NamedTuple):
    """The resync is complete: this copy is the primary's, as of this place in the stream."""

    generation: bytes
    history: bytes
    base: bytes
    origins: bytes


class Hint(NamedTuple):
    """Before a resync: the primary renamed (marks.Kind) or linked this while the peer was
    away. Done if it is still to be done; whatever it leads to is compared wholly."""

    kind: int
    old: bytes
    new: bytes
    flags: int


class Progress(NamedTuple):
    """How far the resync of a directory is, in bytes, for whoever asks the standby."""

    total: int
    compared: int
    copied: int


class Settled(NamedTuple):
    """Both copies are on disk as they were at some place of the stream that has passed: what
    the peer noted as a primary is of no use any more."""


class Check(NamedTuple):
    """Asks what is in the directory that `path` means here, as it is soon after this place
    in the stream; answered by CHECKED. Names are dealt into `shares`; only one is asked for.
    """

    path: bytes
    share: int
    shares: int


class Look(NamedTuple):
    """Asks what `path` is at this place in the stream; answered by CHECKED, empty for nothing."""

    path: bytes


class Sum(NamedTuple):
    """Asks for the hashes of some blocks of the file that `path` means here; answered by HASHES.

    `now` 1: as they are at this place in the stream. Else as they are soon after it.
    """

    path: bytes
    offset: int
    blocks: int
    now: int


FromPrimary = (
    FsyncPath
    | Bind
    | Unbind
    | Make
    | Tmpfile
    | Link
    | Remove
    | Rename
    | Setattr
    | Setxattr
    | Removexattr
    | Fallocate
    | Listing
    | Meta
    | Hash
    | Syncfs
    | Handover
    | Done
    | Hint
    | Settled
    | Progress
    | Check
    | Look
    | Sum
)
FromPeer = Nack | Hashes | Marks | Checked
Frame = FromPrimary | FromPeer
