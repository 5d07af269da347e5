# SPDX-License-Identifier: Apache-2.0
"""The intent log and its marks: what is in it survives, what is torn was not relied on."""

from __future__ import annotations

import contextlib
import os
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haoperator.replica import marks
from haoperator.replica.intent import MAGIC, ROOM, IntentLog
from haoperator.replica.marks import Broken, Kind, Mark, Range

places = st.builds(
    lambda kind, directory, path: Mark(kind, directory, path),
    st.sampled_from([Kind.NAMES, Kind.ENTRY, Kind.ALL]),
    st.sampled_from([b"data", b"other"]),
    st.binary(max_size=40),
)
ranges = st.builds(
    lambda path, first, more: Mark(Kind.BLOCKS, b"data", path, first, first + more),
    st.binary(max_size=40),
    st.integers(0, 2**40),
    st.integers(0, 100),
)
some_marks = st.lists(st.one_of(places, ranges), max_size=20)


@given(some_marks)
def test_marks_survive_being_packed(some: list[Mark]) -> None:
    assert marks.whole(marks.pack(some)) == some


@given(some_marks, st.integers(0, 2000))
def test_torn_marks_end_where_they_are_torn(some: list[Mark], cut: int) -> None:
    data = marks.pack(some)[:cut]
    found = list(marks.unpack(data + bytes(100)))
    assert found == some[: len(found)]
    assert len(marks.pack(some[: len(found) + 1])) > cut or len(found) == len(some)


@given(st.binary(max_size=300))
def test_anything_is_marks_or_broken(data: bytes) -> None:
    with contextlib.suppress(Broken):
        assert marks.pack(marks.whole(data)) == data


@pytest.mark.parametrize(
    "payload",
    [
        marks._PAYLOAD.pack(99, 0, 0, 0, 0, 0),
        marks._PAYLOAD.pack(Kind.NAMES, 5, 0, 0, 0, 0),
        marks._PAYLOAD.pack(Kind.BLOCKS, 0, 0, 0, 9, 3),
    ],
)
def test_whole_mark_without_sense_is_broken(payload: bytes) -> None:
    data = marks._HEAD.pack(zlib.crc32(payload), len(payload)) + payload
    with pytest.raises(Broken):
        marks.whole(data)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9))))
def test_merged_ranges_are_the_same_blocks_once(pairs: list[tuple[int, int]]) -> None:
    given_ranges = [Range(first, first + more) for first, more in pairs]
    found = marks.merged(given_ranges)
    blocks = [block for one in found for block in range(one.first, one.last + 1)]
    assert blocks == sorted({b for one in given_ranges for b in range(one.first, one.last + 1)})


@given(st.sets(st.integers(0, 300)))
def test_bits_are_read_as_ranges(numbers: set[int]) -> None:
    bits = bytearray(40)
    for number in numbers:
        bits[number // 8] |= 1 << number % 8
    found = list(marks.ranges_of_bits(bytes(bits)))
    assert {n for one in found for n in range(one.first, one.last + 1)} == numbers
    assert found == marks.merged(found)


def test_log_is_read_by_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = IntentLog(path)
    assert not log.trusted
    one, two = Mark(Kind.NAMES, b"data", b"a"), Mark(Kind.BLOCKS, b"data", b"a/b", 64, 127)
    log.append([one])
    log.append([two])
    again = IntentLog(path)
    assert again.trusted
    assert again.marks == [one, two]
    again.replace([two])
    assert IntentLog(path).marks == [two]


def test_append_overwrites_in_place_and_the_log_grows_when_full(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = IntentLog(path)
    inode = path.stat().st_ino
    some = [Mark(Kind.ALL, b"data", b"%0200d" % number) for number in range(50)]
    appended: list[Mark] = []
    while path.stat().st_ino == inode:
        assert path.stat().st_size == ROOM
        log.append(some)
        appended += some
    assert path.stat().st_size == 2 * ROOM or path.stat().st_size == 4 * ROOM
    assert IntentLog(path).marks == appended


def test_torn_append_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = IntentLog(path)
    first = Mark(Kind.NAMES, b"data", b"before")
    log.append([first])
    end = log.size
    log.append([Mark(Kind.NAMES, b"data", b"torn")])
    with open(path, "r+b") as file:
        file.seek(log.size - 2)
        file.write(b"\0\0")
    again = IntentLog(path)
    assert again.trusted
    assert again.marks == [first]
    assert again.size == end


@pytest.mark.parametrize("content", [b"", b"rubbish", MAGIC[:-1] + b"x"])
def test_file_that_is_no_log_is_not_trusted(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(content)
    assert not IntentLog(path).trusted
    assert IntentLog(path).trusted  # written anew, and empty


def test_interrupted_replacement_leaves_the_former(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = IntentLog(path)
    log.append([Mark(Kind.NAMES, b"data", b"a")])
    path.with_name("log.new").write_bytes(b"half")
    assert IntentLog(path).marks == [Mark(Kind.NAMES, b"data", b"a")]
    assert not os.path.exists(path.with_name("log.new"))
