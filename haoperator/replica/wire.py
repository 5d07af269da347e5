# SPDX-License-Identifier: Apache-2.0
"""The wire format of frames: how payloads are laid out, packed and checked.

A payload is written by field codes: I (u32), Q (u64), q (i64) and s (bytes with a u32
length before them). Whatever does not fit exactly raises `Rubbish`, and the sender is
cut off.
"""

from __future__ import annotations

import struct

from haoperator.replica import frames

Received = tuple[int, int, int, int, bytes]
"""A frame as C hands it over: type, directory, seq, node, payload."""


class Rubbish(ValueError):
    """The peer sent something that this version does not speak."""


LAYOUT: dict[type[frames.Frame], tuple[frames.Type, str]] = {
    frames.Nack: (frames.Type.NACK, "s"),
    frames.Hashes: (frames.Type.HASHES, "s"),
    frames.Marks: (frames.Type.MARKS, "Is"),
    frames.Checked: (frames.Type.CHECKED, "Is"),
    frames.FsyncPath: (frames.Type.FSYNC, "s"),
    frames.Bind: (frames.Type.BIND, "s"),
    frames.Unbind: (frames.Type.UNBIND, ""),
    frames.Make: (frames.Type.MAKE, "sIIIQqqss"),
    frames.Tmpfile: (frames.Type.TMPFILE, "sIIIq"),
    frames.Link: (frames.Type.LINK, "ssq"),
    frames.Remove: (frames.Type.REMOVE, "sIq"),
    frames.Rename: (frames.Type.RENAME, "ssIqq"),
    frames.Setattr: (frames.Type.SETATTR, "sIIIIQqq"),
    frames.Setxattr: (frames.Type.SETXATTR, "sss"),
    frames.Removexattr: (frames.Type.REMOVEXATTR, "ss"),
    frames.Fallocate: (frames.Type.FALLOCATE, "IQQq"),
    frames.Listing: (frames.Type.LISTING, "sIIqs"),
    frames.Meta: (frames.Type.META, "sIIIqs"),
    frames.Hash: (frames.Type.HASH, "QI"),
    frames.Syncfs: (frames.Type.SYNCFS, ""),
    frames.Handover: (frames.Type.HANDOVER, "s"),
    frames.Done: (frames.Type.DONE, "ssss"),
    frames.Hint: (frames.Type.HINT, "IssI"),
    frames.Settled: (frames.Type.SETTLED, ""),
    frames.Progress: (frames.Type.PROGRESS, "QQQ"),
    frames.Check: (frames.Type.CHECK, "sII"),
    frames.Look: (frames.Type.LOOK, "s"),
    frames.Sum: (frames.Type.SUM, "sQII"),
}
ENTRY = "sIIQQs"
XATTR = "ss"
SEEN = "sIIIQQQQqss"

_NUMBER = {"I": struct.Struct("<I"), "Q": struct.Struct("<Q"), "q": struct.Struct("<q")}
_BY_TYPE = {number.value: (frame, codes) for frame, (number, codes) in LAYOUT.items()}


def type_of(frame: frames.Frame) -> frames.Type:
    """The number that stands in the header."""
    return LAYOUT[type(frame)][0]


def payload_of(frame: frames.Frame) -> bytes:
    """What stands behind the header."""
    return pack(LAYOUT[type(frame)][1], frame)


def pack(codes: str, values: tuple[object, ...]) -> bytes:
    """The payload of one frame, entry or xattr. Times ("q") are bounded, not refused."""
    parts: list[bytes] = []
    for code, value in zip(codes, values, strict=True):
        if isinstance(value, bytes):
            parts.append(_NUMBER["I"].pack(len(value)))
            parts.append(value)
        elif code == "q" and isinstance(value, int):
            parts.append(_NUMBER["q"].pack(min(value, frames.LATEST)))
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


def _unpack(type_number: int, payload: bytes) -> frames.Frame:
    if type_number not in _BY_TYPE:
        raise Rubbish(f"unknown frame type {type_number}")
    cls, codes = _BY_TYPE[type_number]
    values, at = _take(codes, payload, 0)
    if at != len(payload):
        raise Rubbish(f"{cls.__name__}: {len(payload) - at} bytes too many")
    return cls(*values)  # type: ignore[arg-type]


def from_primary(type_number: int, payload: bytes) -> frames.FromPrimary:
    """A frame that a primary may send. Raises Rubbish for anything else."""
    frame = _unpack(type_number, payload)
    if isinstance(frame, frames.FromPeer):
        raise Rubbish(f"a {type(frame).__name__} from a primary")
    return frame


def from_peer(type_number: int, payload: bytes) -> frames.FromPeer:
    """A frame that a standby may send. Raises Rubbish for anything else."""
    frame = _unpack(type_number, payload)
    if not isinstance(frame, frames.FromPeer):
        raise Rubbish(f"a {type(frame).__name__} from a standby")
    return frame


def unpack_entries(data: bytes) -> list[frames.Entry]:
    """The entries of a LISTING."""
    entries, at = [], 0
    while at < len(data):
        values, at = _take(ENTRY, data, at)
        entries.append(frames.Entry(*values))  # type: ignore[arg-type]
    return entries


def unpack_xattrs(data: bytes) -> list[frames.Xattr]:
    """The extended attributes of a META."""
    xattrs, at = [], 0
    while at < len(data):
        (name, value), at = _take(XATTR, data, at)
        xattrs.append(frames.Xattr(name, value))  # type: ignore[arg-type]
    return xattrs


def unpack_seen(data: bytes) -> list[frames.Seen]:
    """What a CHECKED tells of."""
    seen, at = [], 0
    while at < len(data):
        values, at = _take(SEEN, data, at)
        seen.append(frames.Seen(*values))  # type: ignore[arg-type]
    return seen
