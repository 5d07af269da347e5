# SPDX-License-Identifier: Apache-2.0
"""Whoever reaches the port gets nothing without the key, and nothing of the pair suffers."""

from __future__ import annotations

import json
import os
import socket
import struct

import pytest

from haoperator.replica import frames, handshake, wire
from haoperator.replica.handshake import HandshakeError
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
        handshake.MAGIC + struct.pack("<HHI", 99, 0, 0) + bytes(32),
        handshake.MAGIC + struct.pack("<HHI", wire.VERSION, 0, 0) + bytes(32) + bytes(32),
    ],
)
def test_rubbish_is_cut_off(shared: Pair, rubbish: bytes) -> None:
    with connect(shared) as sock:
        sock.sendall(rubbish)
        assert cut_off(sock)
    unharmed(shared)


def test_wrong_key_is_refused_on_both_sides(shared: Pair) -> None:
    with connect(shared) as sock, pytest.raises(HandshakeError, match="does not hold"):
        handshake.as_primary(sock, b"k" * 32, {})
    unharmed(shared)


def test_reflected_proof_is_refused(shared: Pair) -> None:
    """An attacker that plays our own answers back, from a second connection."""
    with connect(shared) as one, connect(shared) as two:
        greeting = handshake._greeting()
        one.sendall(greeting)
        answer = handshake._exactly(one, len(greeting) + 32)
        two.sendall(answer[: len(greeting)])
        reflected = handshake._exactly(two, len(greeting) + 32)
        one.sendall(reflected[len(greeting) :])
        assert cut_off(one)
    unharmed(shared)


def test_silent_strangers_do_not_keep_the_peer_out(shared: Pair) -> None:
    silent = [connect(shared) for _ in range(20)]
    try:
        unharmed(shared)
    finally:
        for sock in silent:
            sock.close()


def primary(pair: Pair, **changes: object) -> tuple[socket.socket, dict[str, object]]:
    """A connection of somebody who holds the key and says that he is node a."""
    hello = {
        "cluster": "test",
        "node": "a",
        "record": json.dumps(pair.a.record),
        "directories": ["data"],
        "token": "",
    } | changes
    sock = connect(pair)
    return sock, handshake.as_primary(sock, bytes.fromhex(KEY), hello)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cluster": "other"}, "not my peer"),
        ({"node": "c"}, "not my peer"),
        ({"directories": ["else"]}, "configurations differ"),
    ],
)
def test_wrong_peer_is_refused(shared: Pair, changes: dict[str, object], reason: str) -> None:
    sock, answer = primary(shared, **changes)
    sock.close()
    assert reason in str(answer["reason"])
    unharmed(shared)


def frame(type_number: int, seq: int, payload: bytes, node: int = 0, directory: int = 0) -> bytes:
    head = struct.pack("<IHHQQ", 24 + len(payload), type_number, directory, seq, node)
    return head + payload


ESCAPES = [b"../escaped", b"/etc/escaped", b"link/escaped", b"a/../../escaped", b".", b"", b"a//b"]


@pytest.mark.parametrize("path", ESCAPES)
def test_paths_that_leave_the_directory_are_refused(pair: Pair, path: bytes) -> None:
    pair.b.boot()
    (pair.b.backing / "link").symlink_to("/etc")
    record = {
        "generation": "a" * 16,
        "history": [],
        "consistent": True,
        "up_to_date": True,
        "last_primary": True,
        "peer_outdated": True,
    }
    hello = {
        "cluster": "test",
        "node": "a",
        "record": json.dumps(record),
        "directories": ["data"],
        "token": "",
    }
    with connect(pair) as sock:
        answer = handshake.as_primary(sock, bytes.fromhex(KEY), hello)
        assert answer == {"accept": "whole"}
        make = frames.Make(path, 0o100644, 0, 0, 0, 0, 0, b"", b"")
        sock.sendall(frame(frames.Type.MAKE, 1, wire.payload_of(make), node=5))
        rename = frames.Rename(path, b"x", 0, 0, 0)
        sock.sendall(frame(frames.Type.RENAME, 2, wire.payload_of(rename)))
        sock.settimeout(0.3)
        try:
            while sock.recv(4096):
                pass
        except TimeoutError:
            pass
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
    record = json.dumps(
        {
            "generation": "a" * 16,
            "history": [],
            "consistent": True,
            "up_to_date": True,
            "last_primary": True,
            "peer_outdated": True,
        }
    )
    hello = {
        "cluster": "test",
        "node": "a",
        "record": record,
        "directories": ["data"],
        "token": "",
    }
    with connect(pair) as sock:
        handshake.as_primary(sock, bytes.fromhex(KEY), hello)
        sock.sendall(broken)
        assert cut_off(sock)
    wait_for(lambda: pair.b.stream == "disconnected", "it is over")
    pair.a.boot()
    pair.a.begin()
    pair.a.wait_stream("synced")
