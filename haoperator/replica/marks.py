# SPDX-License-Identifier: Apache-2.0
"""Marks: what may differ between the two copies, named by paths, so that it can be stored
in the intent log, survive this process, and be told to the peer.

A mark promises nothing about what it names: it may be equal, or not be there. What no
mark names is equal, except for changes that the stream still carries.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import NamedTuple

BLOCK = 64 * 1024
ZONE = 4 * 1024 * 1024
"""What is written down before the first write to it, like a zone of DRBD's activity log."""
ZONE_BLOCKS = ZONE // BLOCK

_HEAD = struct.Struct("<II")
"""CRC-32 of the payload, its length."""
_PAYLOAD = struct.Struct("<BHIIQQ")
"""Kind, lengths of the three strings that follow, first, last."""
LONGEST = 1 << 20


class Kind(IntEnum):
    NAMES = 1
    """Of the directory at `path`: its names, what they are, their attributes, and the first
    zone of each file. Larger files whose identity changed have an ALL of their own."""
    ENTRY = 2
    """The same for the one name `path`; the empty path is the replicated directory."""
    ALL = 3
    """Whatever is at `path`, wholly, with all below it."""
    BLOCKS = 4
    """Of the file at `path`, the blocks from `first` to `last`."""
    RENAMED = 5
    """A hint: `path` was renamed to `other`, with the flags in `first`. What moved has an ALL
    as well; doing the same there saves copying it."""
    LINKED = 6
    """A hint: `other` was made another name of `path`."""


HINTS = (Kind.RENAMED, Kind.LINKED)


class Mark(NamedTuple):
    kind: Kind
    directory: bytes
    path: bytes
    first: int = 0
    last: int = 0
    other: bytes = b""


class Broken(ValueError):
    """These are not marks: nothing is known about what differs."""


EVERYTHING = b""
"""The path of a directory as such: ALL of it is a comparison of everything."""


def pack(marks: Iterable[Mark]) -> bytes:
    return b"".join(map(_pack_one, marks))


def _pack_one(mark: Mark) -> bytes:
    strings = (mark.directory, mark.path, mark.other)
    payload = _PAYLOAD.pack(mark.kind, *map(len, strings), mark.first, mark.last)
    payload += b"".join(strings)
    return _HEAD.pack(zlib.crc32(payload), len(payload)) + payload


def unpack(data: bytes) -> Iterator[Mark]:
    """Whole marks up to the first that is not: what a crash left half written was not
    relied on by anybody. Raises Broken for a mark that is whole and makes no sense."""
    at = 0
    while at + _HEAD.size <= len(data):
        crc, length = _HEAD.unpack_from(data, at)
        payload = data[at + _HEAD.size : at + _HEAD.size + length]
        if not _PAYLOAD.size <= length <= LONGEST or len(payload) < length:
            return
        if zlib.crc32(payload) != crc:
            return
        yield _unpack_one(payload)
        at += _HEAD.size + length


def _unpack_one(payload: bytes) -> Mark:
    kind, directory, path, other, first, last = _PAYLOAD.unpack_from(payload)
    strings = payload[_PAYLOAD.size :]
    if directory + path + other != len(strings):
        raise Broken("a mark whose strings do not fill it")
    try:
        kind = Kind(kind)
    except ValueError as err:
        raise Broken(f"a mark of unknown kind {kind}") from err
    if first > last and kind is Kind.BLOCKS:
        raise Broken("a mark of a range that ends before it begins")
    return Mark(
        kind,
        strings[:directory],
        strings[directory : directory + path],
        first,
        last,
        strings[directory + path :],
    )


def whole(data: bytes) -> list[Mark]:
    """Marks from the peer, all of them. Raises Broken."""
    marks = list(unpack(data))
    if len(pack(marks)) != len(data):
        raise Broken("marks that end in the middle")
    return marks


class Range(NamedTuple):
    """Blocks of a file, the last included."""

    first: int
    last: int


def merged(ranges: Iterable[Range]) -> list[Range]:
    """The same blocks in order, each once."""
    found: list[Range] = []
    for one in sorted(ranges):
        if found and one.first <= found[-1].last + 1:
            found[-1] = Range(found[-1].first, max(found[-1].last, one.last))
        else:
            found.append(one)
    return found


def ranges_of_bits(bits: bytes) -> Iterator[Range]:
    """The runs of ones in a set as C keeps it: the lowest bit first."""
    first = -1
    for at, byte in enumerate(bits):
        if byte == 0 and first < 0:
            continue
        if byte == 0xFF and first >= 0:
            continue
        for bit in range(8):
            number = at * 8 + bit
            if byte >> bit & 1:
                first = number if first < 0 else first
            elif first >= 0:
                yield Range(first, number - 1)
                first = -1
    if first >= 0:
        yield Range(first, len(bits) * 8 - 1)
