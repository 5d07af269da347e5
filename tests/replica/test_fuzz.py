# SPDX-License-Identifier: Apache-2.0
"""Whatever is sent to the Python parsers, only the errors come out that their callers expect.

A peer that holds the key, a mount helper, a file in /run: none of them can end a thread,
or touch anything outside of the replicated directory.
"""

from __future__ import annotations

import array
import contextlib
import errno
import json
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from haoperator.core.record import DataRecord
from haoperator.replica import _hotpath, frames, handshake, wire
from haoperator.replica.frames import Type
from haoperator.replica.hashing import HashPool
from haoperator.replica.incoming import Incoming
from haoperator.replica.nodelog import NodeLog
from haoperator.replica.reception import Reception
from haoperator.replica.standing import Refused
from tests.replica.channels import TIMEOUT_MS, channels
from tests.replica.pair import wait_for
from tests.replica.trees import tree_of

quickly = settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

EDGES = [0, 1, 2, 1000, 1 << 15, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]
WIDE = [*EDGES, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]
MODES = [0o100644, 0o40755, 0o120777, 0o20666, 0o60666, 0o10644, 0o140755, 0o104755, 0, 0o170000]
PATHS = [
    *(b"a", b"b", b"d", b"d/a", b"d/b", b"d/link/x", b"link", b"link/x", b"out", b"out/x"),
    *(b"", b".", b"..", b"../x", b"../outside/secret", b"/etc/passwd", b"d/../../outside/secret"),
    *(b"a/", b"a//b", b"d/.", b"\0", b"a\0b", b"\xff" * 255, b"x" * 256, b"/".join([b"d"] * 3000)),
]
NAMES = [b"user.x", b"user.", b"security.capability", b"trusted.x", b"no", b"", b"user.a\0b"]
ACLS = [b"", b"\2\0\0\0", b"\2\0\0\0\1\0\6\0\xff\xff\xff\xff"]

paths = st.one_of(st.sampled_from(PATHS), st.binary(max_size=8))
texts = st.one_of(paths, st.sampled_from([*NAMES, *ACLS]), st.binary(max_size=40))
numbers = {
    "I": st.one_of(st.sampled_from([*EDGES, *MODES]), st.integers(0, (1 << 32) - 1)),
    "Q": st.one_of(st.sampled_from(WIDE), st.integers(0, (1 << 64) - 1)),
    "q": st.one_of(
        st.sampled_from([frames.NO_TIME, frames.NO_TIME + 1, -1, 0, (1 << 63) - 1]),
        st.integers(-(1 << 63), (1 << 63) - 1),
    ),
}


@st.composite
def packed(draw: st.DrawFn, codes: str) -> bytes:
    """Fields of the right kind with values of every kind."""
    values = tuple(draw(texts if code == "s" else numbers[code]) for code in codes)
    return wire.pack(codes, values)


SENT = sorted(layout for layout in wire.LAYOUT.values() if layout[0] != Type.SYNCFS)
"""Without the one that has no field, and that brings all of this machine to disk."""


@st.composite
def received(draw: st.DrawFn) -> wire.Received:
    """A frame as C hands it over: mostly well formed, with nonsense in it."""
    number, codes = draw(st.sampled_from(SENT))
    payload = draw(packed(codes))
    match number:
        case Type.LISTING | Type.META if draw(st.booleans()):
            inner = wire.ENTRY if number == Type.LISTING else wire.XATTR
            packs = b"".join(draw(st.lists(packed(inner), max_size=4)))
            head = draw(packed(codes[:-1]))
            payload = head + struct.pack("<I", len(packs)) + packs
    if draw(st.integers(0, 9)) == 0:
        payload = draw(st.one_of(st.binary(max_size=60), st.just(payload[:-1])))
    directory = draw(st.sampled_from([0, 0, 0, 0, 1, 65535]))
    return int(number), directory, draw(st.integers(0, 5)), draw(st.integers(0, 4)), payload


def open_files() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


class Session:
    """A session whose owner believes everything."""

    def handed_over(self, token: bytes) -> None: ...

    def resynced(self, done: frames.Done) -> None:
        done.generation.decode("ascii")
        tuple(map(str, json.loads(done.history)))

    def settled(self) -> None: ...
    def progressed(self, directory: int, told: frames.Progress) -> None: ...


class Scratch:
    """A standby's directory with something in it, and a forbidden one beside it."""

    def __init__(self, base: Path) -> None:
        self.root, self.outside = base / "root", base / "outside"
        (self.root / "d").mkdir(parents=True)
        self.outside.mkdir()
        (self.outside / "secret").write_text("s")
        (self.root / "a").write_text("a")
        (self.root / "link").symlink_to("../outside")
        (self.root / "out").symlink_to("../outside/secret")
        (self.root / "d" / "link").symlink_to("/")
        self.before = tree_of(self.outside), sorted(os.listdir(base)), base

    def untouched(self) -> bool:
        outside, beside, base = self.before
        return (tree_of(self.outside), sorted(os.listdir(base))) == (outside, beside)


@given(st.lists(received(), min_size=1, max_size=12), st.booleans())
@quickly
def test_no_frame_reaches_out_of_the_directory(
    tmp_path_factory: pytest.TempPathFactory, received: list[wire.Received], tolerant: bool
) -> None:
    scratch = Scratch(tmp_path_factory.mktemp("fuzz"))
    failures: list[OSError] = []
    before = open_files()
    ours, theirs = channels()
    root = os.open(scratch.root, os.O_RDONLY | os.O_DIRECTORY)
    hashes = HashPool(failures.append)
    applier = _hotpath.Applier(ours)
    incoming = Incoming(applier, [root], Session(), hashes, tolerant=tolerant, partial=False)
    try:
        for frame in received:
            with contextlib.suppress(wire.Rubbish, OSError):
                incoming.apply(frame)
    finally:
        hashes.close()
        incoming.close()
        applier.close()
        os.close(root)
        ours.close()
        theirs.close()
    wait_for(lambda: open_files() == before, "no descriptor is left", 3.0)
    assert scratch.untouched()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)
DEEP = "[" * 50_000
FIELDS = ["generation", "history", "consistent", "up_to_date", "last_primary", "peer_outdated"]


@given(
    st.one_of(
        st.text(),
        json_values.map(json.dumps),
        st.dictionaries(st.sampled_from([*FIELDS, "base", "x"]), json_values).map(json.dumps),
    )
)
@example(DEEP)
@quickly
def test_a_data_record_is_whole_or_refused(text: str) -> None:
    try:
        record = DataRecord.from_json(text)
    except ValueError:
        return
    assert DataRecord.from_json(record.to_json()) == record
    assert isinstance(record.current, bool)


@given(st.binary(max_size=200), st.integers(0, 1 << 32))
@example(DEEP.encode(), len(DEEP))
@example(b"\xff\xfe{}", 4)
@quickly
def test_what_a_peer_says_is_an_object_or_refused(said: bytes, size: int) -> None:
    ours, theirs = channels()
    theirs.send(struct.pack("<I", size & 0xFFFF_FFFF) + said, TIMEOUT_MS)
    theirs.close()
    try:
        assert isinstance(handshake._Talk(ours, time.monotonic() + handshake.SECONDS).hear(), dict)
    except handshake.HandshakeError:
        pass
    except OSError as err:
        assert err.errno == errno.ECONNRESET  # it said less than it announced
    finally:
        ours.close()


@given(st.binary(max_size=300), st.lists(st.binary(max_size=60), max_size=5))
@quickly
def test_any_log_of_nodes_can_be_replayed(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, names: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("log") / "nodes"
    log = NodeLog(path)
    log.begin(38)
    for number, name in enumerate(names, 2):
        log.named(number, 1, name, number)
    log.close(remove=False)
    with open(path, "ab") as file:
        file.write(noise)
    again = NodeLog(path)
    try:
        former = again.replay()
        assert former is not None
        assert all(number in former.nodes or noise for number in range(2, 2 + len(names)))
        assert again.size <= path.stat().st_size
        again.named(1000, 1, b"later", 5)
        later = again.replay()
        assert later is not None
        assert later.last >= 1000
    finally:
        again.close(remove=True)


@pytest.fixture(scope="module")
def reception(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    def mounted(name: str, path: str, fuse_fd: int, root_fd: int) -> None:
        raise Refused(f"{name} and {path} are not mine")

    path = tmp_path_factory.mktemp("reception") / "socket"
    Reception(path, mounted).start()
    yield path


helpers = st.fixed_dictionaries(
    {},
    optional={"name": json_values, "path": json_values, "x": json_values},
)


@given(
    st.one_of(st.binary(max_size=200), st.one_of(helpers, json_values).map(json.dumps)),
    st.integers(0, 4),
)
@example(DEEP[:8000], 2)
@example(json.dumps({"name": "\ud800", "path": "x"}), 2)
@quickly
def test_every_mount_helper_gets_an_answer(
    reception: Path, said: bytes | str, descriptors: int
) -> None:
    header = said.encode() if isinstance(said, str) else said
    opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(descriptors)]
    rights: list[Any] = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", opened))]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(10)
            sock.connect(str(reception))
            sock.sendmsg([header or b" "], rights if opened else [])
            assert sock.recv(4096)
    finally:
        for fd in opened:
            os.close(fd)
