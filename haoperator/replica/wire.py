# SPDX-License-Identifier: Apache-2.0
"""The frames of the replication stream: what each means, and how it is laid out.

A frame is a header (length, type, directory, seq, node; see frames.h) and a payload.
Payloads are written by field codes: I (u32), Q (u64), q (i64) and s (bytes with a u32
length before them). Whatever does not fit exactly raises `Rubbish`, and the sender is
cut off. Paths are bytes, relative to the replicated directory, without a leading slash;
the directory itself is the empty path.

WRITE, SYNCDATA, FSYNC, PING, ACK and SYNCED are spoken in C.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

VERSION = 1
NO_TIME = -(1 << 63)
"""Leave this time as it is."""
LISTING_PART = 512
"""Entries in one LISTING frame at most."""


Received = tuple[int, int, int, int, bytes]
"""A frame as C hands it over: type, directory, seq, node, payload."""


class Rubbish(ValueError):
    """The peer sent something that this version does not speak."""


class Type(IntEnum):
    PING = 1
    ACK = 2
    SYNCED = 3
    NACK = 4
    HASHES = 5
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


class Nack(NamedTuple):
    """Peer: a frame could not be applied; this copy is outdated from now on."""

    reason: bytes


class Hashes(NamedTuple):
    """Peer: the 16-byte hashes of the blocks that HASH (named by seq) asked for.

    They may end early: the file is shorter, or not there.
    """

    hashes: bytes


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
    """One name in a LISTING. `group` is the same for all names of one inode, 0: only one."""

    name: bytes
    mode: int
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
)
FromPeer = Nack | Hashes
Frame = FromPrimary | FromPeer

LAYOUT: dict[type[Frame], tuple[Type, str]] = {
    Nack: (Type.NACK, "s"),
    Hashes: (Type.HASHES, "s"),
    FsyncPath: (Type.FSYNC, "s"),
    Bind: (Type.BIND, "s"),
    Unbind: (Type.UNBIND, ""),
    Make: (Type.MAKE, "sIIIQqqss"),
    Tmpfile: (Type.TMPFILE, "sIIIq"),
    Link: (Type.LINK, "ssq"),
    Remove: (Type.REMOVE, "sIq"),
    Rename: (Type.RENAME, "ssIqq"),
    Setattr: (Type.SETATTR, "sIIIIQqq"),
    Setxattr: (Type.SETXATTR, "sss"),
    Removexattr: (Type.REMOVEXATTR, "ss"),
    Fallocate: (Type.FALLOCATE, "IQQq"),
    Listing: (Type.LISTING, "sIIqs"),
    Meta: (Type.META, "sIIIqs"),
    Hash: (Type.HASH, "QI"),
    Syncfs: (Type.SYNCFS, ""),
    Handover: (Type.HANDOVER, "s"),
    Done: (Type.DONE, "ss"),
}
ENTRY = "sIQQs"
XATTR = "ss"

_NUMBER = {"I": struct.Struct("<I"), "Q": struct.Struct("<Q"), "q": struct.Struct("<q")}
_BY_TYPE = {number.value: (frame, codes) for frame, (number, codes) in LAYOUT.items()}


def type_of(frame: Frame) -> Type:
    """The number that stands in the header."""
    return LAYOUT[type(frame)][0]


def payload_of(frame: Frame) -> bytes:
    """What stands behind the header."""
    return pack(LAYOUT[type(frame)][1], frame)


def pack(codes: str, values: tuple[object, ...]) -> bytes:
    """The payload of one frame, entry or xattr."""
    parts: list[bytes] = []
    for code, value in zip(codes, values, strict=True):
        if isinstance(value, bytes):
            parts.append(_NUMBER["I"].pack(len(value)))
            parts.append(value)
        else:
            parts.append(_NUMBER[code].pack(value))
    return b"".join(parts)


def _take(codes: str, data: bytes, at: int) -> tuple[list[int | bytes], int]:
    values: list[int | bytes] = []
    try:
        for code in codes:
            number = _NUMBER["I" if code == "s" else code]
            value: int = number.unpack_from(data, at)[0]
            at += number.size
            if code == "s":
                if at + value > len(data):
                    raise Rubbish("a string is longer than its frame")
                values.append(data[at : at + value])
                at += value
            else:
                values.append(value)
    except struct.error as err:
        raise Rubbish("a frame ends in the middle of a field") from err
    return values, at


def _unpack(type_number: int, payload: bytes) -> Frame:
    if type_number not in _BY_TYPE:
        raise Rubbish(f"unknown frame type {type_number}")
    cls, codes = _BY_TYPE[type_number]
    values, at = _take(codes, payload, 0)
    if at != len(payload):
        raise Rubbish(f"{cls.__name__}: {len(payload) - at} bytes too many")
    return cls(*values)  # type: ignore[arg-type]


def from_primary(type_number: int, payload: bytes) -> FromPrimary:
    """A frame that a primary may send. Raises Rubbish for anything else."""
    frame = _unpack(type_number, payload)
    if isinstance(frame, FromPeer):
        raise Rubbish(f"a {type(frame).__name__} from a primary")
    return frame


def from_peer(type_number: int, payload: bytes) -> FromPeer:
    """A frame that a standby may send. Raises Rubbish for anything else."""
    frame = _unpack(type_number, payload)
    if not isinstance(frame, FromPeer):
        raise Rubbish(f"a {type(frame).__name__} from a standby")
    return frame


def unpack_entries(data: bytes) -> list[Entry]:
    """The entries of a LISTING."""
    entries, at = [], 0
    while at < len(data):
        (name, mode, device, group, target), at = _take(ENTRY, data, at)
        entries.append(Entry(name, mode, device, group, target))  # type: ignore[arg-type]
    return entries


def unpack_xattrs(data: bytes) -> list[Xattr]:
    """The extended attributes of a META."""
    xattrs, at = [], 0
    while at < len(data):
        (name, value), at = _take(XATTR, data, at)
        xattrs.append(Xattr(name, value))  # type: ignore[arg-type]
    return xattrs
