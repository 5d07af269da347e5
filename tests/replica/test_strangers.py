# SPDX-License-Identifier: Apache-2.0
"""Whoever reaches the port gets nothing without the key, and nothing of the pair suffers."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import time
from dataclasses import replace
from typing import Any

import pytest

from haoperator.replica import frames, handshake, wire
from haoperator.replica._hotpath import Channel
from haoperator.replica.handshake import HandshakeError, Meeting
from haoperator.replica.settings import Settings
from tests.replica.node_process import settings_from
from tests.replica.pair import KEY, Pair, wait_for
from tests.replica.trees import assert_equal_trees


def connect(pair: Pair, node: str = "b") -> socket.socket:
    sock = socket.create_connection(("127.0.77.2" if node == "b" else "127.0.77.1", pair.port))
    sock.settimeout(10)
    return sock


def cut_off(sock: socket.socket) -> bool:
    try:
        while sock.recv(65536):
            pass
    except ConnectionError:
        return True
    return True


def unharmed(pair: Pair) -> None:
    assert pair.a.stream == "synced"
    (pair.a.path / f"after-{os.urandom(4).hex()}").write_text("x")
    assert_equal_trees(pair.a.backing, pair.b.backing)


@pytest.mark.parametrize(
    "rubbish",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + b"x" * 100,
        bytes(200),
        b"\x16\x03\x01\xff\xff" + bytes(100_000),  # a record longer than there are
        b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + bytes(20_000),  # a ClientHello of 16 MiB
        os.urandom(300),
    ],
)
def test_rubbish_is_cut_off(shared: Pair, rubbish: bytes) -> None:
    with connect(shared) as sock:
        sock.sendall(rubbish)
        assert cut_off(sock)
    unharmed(shared)


def test_silent_strangers_do_not_keep_the_peer_out(shared: Pair) -> None:
    silent = [connect(shared) for _ in range(20)]
    try:
        unharmed(shared)
    finally:
        for sock in silent:
            sock.close()


def test_stranger_who_stops_in_the_middle_is_cut_off(shared: Pair) -> None:
    with connect(shared) as sock:
        sock.sendall(b"\x16\x03\x01\x01\x00")  # the beginning of a ClientHello
        assert cut_off(sock)
    unharmed(shared)


def test_stranger_who_never_ends_is_cut_off(shared: Pair) -> None:
    """Each byte comes in time; all of them together do not."""
    began = time.monotonic()
    with connect(shared) as sock:
        sock.settimeout(0.2)
        sock.sendall(b"\x16\x03\x01\x40\x00\x01\x00\x30\x00")
        open_still = True
        while open_still:
            assert time.monotonic() - began < 20
            try:
                sock.sendall(b"\0")
                open_still = bool(sock.recv(65536))
            except TimeoutError:
                continue
            except ConnectionError:
                open_still = False
    unharmed(shared)


PRIMARY: dict[str, object] = {
    "record": json.dumps(
        {
            "generation": "a" * 16,
            "history": [],
            "consistent": True,
            "up_to_date": True,
            "last_primary": True,
            "peer_outdated": True,
        }
    ),
    "directories": ["data"],
    "token": "",
    "base": "",
}
"""What a primary says whose data is newer than that of a standby without any."""


def settings(pair: Pair, **changes: Any) -> Settings:
    """Those of node a."""
    return replace(settings_from(pair.a.settings), **changes)


def primary(pair: Pair, said: dict[str, object]) -> Meeting:
    """Somebody who holds the key and says that he is node a."""
    return handshake.as_primary(connect(pair), settings(pair), lambda: said)


@pytest.mark.parametrize("changes", [{"cluster": "other"}, {"node": "c"}, {"node": "b"}])
def test_wrong_peer_is_refused(shared: Pair, changes: dict[str, str]) -> None:
    """The last of them is a connection of b that was led back to itself."""
    with pytest.raises(HandshakeError, match="is not the peer of b of test"):
        handshake.as_primary(connect(shared), settings(shared, **changes), dict)
    unharmed(shared)


def test_knock_of_somebody_else_is_no_sign_of_life(pair: Pair) -> None:
    pair.b.boot()
    with pytest.raises(HandshakeError, match="is not the peer"):
        handshake.as_primary(connect(pair), settings(pair, node="b"), lambda: {"knock": True})
    assert pair.b.state["heard"] == 0
    meeting = handshake.as_primary(connect(pair), settings(pair), lambda: {"knock": True})
    assert meeting.answer["refuse"] == "knock"
    assert pair.b.state["heard"] > 0


def test_other_configuration_is_refused(shared: Pair) -> None:
    said = PRIMARY | {"record": json.dumps(shared.a.record), "directories": ["else"]}
    meeting = primary(shared, said)
    assert meeting.answer["reason"] == "the two configurations differ"
    unharmed(shared)


@pytest.mark.parametrize("said", [b"", b"[]", b"{", b'{"cluster": 1}', b"\xff" * 10])
def test_holder_of_the_key_who_says_nonsense_is_cut_off(shared: Pair, said: bytes) -> None:
    channel = Channel(connect(shared).detach(), bytes.fromhex(KEY), False, 5000)
    channel.send(struct.pack("<I", len(said)) + said, 5000)
    with pytest.raises(OSError, match=r"reset|pipe"):
        channel.receive(1, 10_000)
    unharmed(shared)


def test_holder_of_the_key_who_says_too_much_is_cut_off(shared: Pair) -> None:
    channel = Channel(connect(shared).detach(), bytes.fromhex(KEY), False, 5000)
    channel.send(struct.pack("<I", handshake.MOST_JSON + 1), 5000)
    with pytest.raises(OSError, match=r"reset|pipe"):
        channel.receive(1, 10_000)
    unharmed(shared)


def frame(type_number: int, seq: int, payload: bytes, node: int = 0, directory: int = 0) -> bytes:
    head = struct.pack("<IHHQQ", 24 + len(payload), type_number, directory, seq, node)
    return head + payload


ESCAPES = [b"../escaped", b"/etc/escaped", b"link/escaped", b"a/../../escaped", b".", b"", b"a//b"]


@pytest.mark.parametrize("path", ESCAPES)
def test_paths_that_leave_the_directory_are_refused(pair: Pair, path: bytes) -> None:
    pair.b.boot()
    (pair.b.backing / "link").symlink_to("/etc")
    meeting = primary(pair, PRIMARY)
    assert meeting.answer == {"accept": "whole"}
    make = frames.Make(path, 0o100644, 0, 0, 0, 0, 0, b"", b"")
    meeting.channel.send(frame(frames.Type.MAKE, 1, wire.payload_of(make), node=5), 5000)
    rename = frames.Rename(path, b"x", 0, 0, 0)
    with contextlib.suppress(OSError):
        meeting.channel.send(frame(frames.Type.RENAME, 2, wire.payload_of(rename)), 5000)
    wait_for(lambda: pair.b.stream == "disconnected", "it is over")
    assert not os.path.exists("/etc/escaped")
    assert not (pair.b.path.parent / "escaped").exists()
    assert os.listdir(pair.b.backing) == ["link"]


BROKEN = [
    struct.pack("<IHHQQ", 0, 16, 0, 1, 0),
    struct.pack("<IHHQQ", 0xFFFF_FFFF, 16, 0, 1, 0),
    frame(16, 1, b"short", node=1),
    frame(999, 1, b""),
    frame(16, 7, bytes(24), node=1),
    frame(frames.Type.ACK, 0, b""),
    frame(frames.Type.REMOVE, 1, b"\xff\xff\xff\xff"),
    frame(frames.Type.REMOVE, 1, wire.payload_of(frames.Remove(b"x", 0, 0)) + b"more"),
    frame(frames.Type.REMOVE, 1, wire.payload_of(frames.Remove(b"x", 0, 0)), directory=9),
]


@pytest.mark.parametrize("broken", BROKEN)
def test_broken_frames_from_a_primary_are_cut_off(pair: Pair, broken: bytes) -> None:
    pair.b.boot()
    meeting = primary(pair, PRIMARY)
    meeting.channel.send(broken, 5000)
    with pytest.raises(OSError, match=r"reset|pipe"):
        while True:
            meeting.channel.receive(1, 10_000)
    wait_for(lambda: pair.b.stream == "disconnected", "it is over")
    pair.a.boot()
    pair.a.begin()
    pair.a.wait_stream("synced")
