# SPDX-License-Identifier: Apache-2.0
"""The wire format, and that C and Python mean the same by it."""

from __future__ import annotations

import os
import re
import struct
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haoperator.replica import _hotpath, abi, frames, wire
from tests.replica.channels import channels

SOURCE = Path(wire.__file__).parent


def test_c_and_python_number_frames_alike() -> None:
    header = (SOURCE / "frames.h").read_text()
    numbers = dict(re.findall(r"FRAME_(\w+) = (\d+)", header))
    assert numbers
    for name, number in numbers.items():
        assert frames.Type[name] == int(number)


@given(st.data())
def test_every_frame_survives_the_wire(data: st.DataObject) -> None:
    values = {
        "I": st.integers(0, 2**32 - 1),
        "Q": st.integers(0, 2**64 - 1),
        "q": st.integers(-(2**63), frames.LATEST),
        "s": st.binary(max_size=50),
    }
    layouts: list[Any] = sorted(wire.LAYOUT.items(), key=str)
    cls, (number, codes) = data.draw(st.sampled_from(layouts))
    frame = cls(*(data.draw(values[code]) for code in codes))
    unpack = wire.from_peer if issubclass(cls, frames.FromPeer) else wire.from_primary
    payload = wire.payload_of(frame)
    assert unpack(number, payload) == frame
    with pytest.raises(wire.Rubbish):
        unpack(number, payload + b"x")
    if payload:
        with pytest.raises(wire.Rubbish):
            unpack(number, payload[:-1])


@given(st.integers(0, 60), st.binary(max_size=200))
def test_random_bytes_are_rubbish_or_a_frame(number: int, payload: bytes) -> None:
    for unpack in (wire.from_primary, wire.from_peer):
        try:
            frame = unpack(number, payload)
        except wire.Rubbish:
            continue
        assert wire.payload_of(frame) == payload


@given(st.lists(st.tuples(st.binary(min_size=1), st.integers(0, 2**32 - 1), st.binary())))
def test_entries_survive_the_wire(entries: list[tuple[bytes, int, bytes]]) -> None:
    packed = [frames.Entry(name, mode, 1, 2, 3, target) for name, mode, target in entries]
    data = b"".join(wire.pack(wire.ENTRY, entry) for entry in packed)
    assert wire.unpack_entries(data) == packed


def test_device_numbers_survive_the_kernels_encoding() -> None:
    for major, minor in [(1, 3), (259, 70_000), (8, 255), (0, 256)]:
        device = os.makedev(major, minor)
        assert abi.user_device(abi.kernel_device(device)) == device


def test_oversized_frame_is_not_even_read() -> None:
    ours, theirs = channels()
    applier = _hotpath.Applier(ours)
    theirs.send(struct.pack("<IHHQQ", _hotpath.MAX_FRAME + 1, 16, 0, 1, 0), 1000)
    with pytest.raises(OSError, match="Protocol error"):
        applier.next(1000)


def test_frames_may_come_in_any_pieces(tmp_path: Path) -> None:
    ours, theirs = channels()
    target = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    applier = _hotpath.Applier(ours)
    applier.bind(7, target)
    stream = b""
    for seq in range(1, 50):
        body = struct.pack("<QqII", (seq - 1) * 3, frames.NO_TIME, 0, 0) + b"abc"
        stream += struct.pack("<IHHQQ", 24 + len(body), 16, 0, seq, 7) + body
    stream += struct.pack("<IHHQQ", 24, frames.Type.UNBIND, 0, 50, 7)

    def send() -> None:
        for at in range(0, len(stream), 7):
            theirs.send(stream[at : at + 7], 5000)

    sender = threading.Thread(target=send)
    sender.start()
    assert applier.next(5000) == (frames.Type.UNBIND, 0, 50, 7, b"")
    sender.join()
    assert (tmp_path / "file").read_bytes() == b"abc" * 49


def test_one_fsync_serves_all_that_wait_for_the_same_file(tmp_path: Path) -> None:
    ours, theirs = channels()
    applier = _hotpath.Applier(ours)
    for node in (7, 8):
        applier.bind(node, os.open(tmp_path / str(node), os.O_RDWR | os.O_CREAT))
    waiting = [(seq, 7 + seq % 2) for seq in range(1, 21)]
    for seq, node in waiting:
        body = struct.pack("<II", seq % 3, 0)
        theirs.send(struct.pack("<IHHQQ", 32, frames.Type.FSYNC, 0, seq, node) + body, 5000)
    theirs.send(struct.pack("<IHHQQ", 24, frames.Type.UNBIND, 0, 21, 7), 5000)
    assert applier.next(5000)[0] == frames.Type.UNBIND  # all are queued
    worker = threading.Thread(target=applier.fsync_work)
    worker.start()
    synced: list[tuple[int, ...]] = []
    while len(synced) < len(waiting):
        answer = struct.unpack("<IHHQQ", theirs.receive(24, 10_000))
        if answer[1] != frames.Type.ACK:
            synced.append(answer)
    applier.close()
    worker.join()
    assert {kind for _, kind, *_ in synced} == {frames.Type.SYNCED}
    asked_first = [seq for seq, node in waiting if node == 8]
    assert [seq for _, _, _, seq, _ in synced[:10]] == asked_first
    assert sorted(seq for _, _, _, seq, _ in synced) == [seq for seq, _ in waiting]
