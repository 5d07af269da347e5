# SPDX-License-Identifier: Apache-2.0
"""The first bytes of a replication connection: who is there, and what shall be done.

Both sides prove that they hold the key before anything else is read from them
(HMAC-SHA256 over both challenges, with different words for the two directions, so that
nothing can be reflected). Then each says what it is in one JSON object.

    primary                               standby
    greeting, challenge        ->
                               <-         greeting, challenge, proof
    proof                      ->
    {node, record, ...}        ->
                               <-         {accept: "resync" | "synced"} or {refuse, reason}
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import socket
import struct
from dataclasses import dataclass
from typing import Any

from haoperator.replica.wire import VERSION

MAGIC = b"HAOPREP\0"
FEATURES = 0
"""Bits that both sides must set for a feature to be used; none so far."""
SECONDS = 5.0
MOST_JSON = 64 * 1024

_GREETING = struct.Struct("<8sHHI32s")
_PROOF_BYTES = 32


class HandshakeError(Exception):
    """The other side is not our peer, or speaks another language."""


@dataclass(frozen=True, slots=True)
class Greeting:
    version: int
    features: int
    raw: bytes


def as_primary(sock: socket.socket, key: bytes, hello: dict[str, Any]) -> dict[str, Any]:
    """Prove, be proved to, say `hello`; returns the standby's answer. Raises HandshakeError."""
    try:
        sock.settimeout(SECONDS)
        mine = _greeting()
        sock.sendall(mine)
        peer = _read_greeting(sock)
        proof = _exactly(sock, _PROOF_BYTES)
        if not hmac.compare_digest(proof, _proof(key, b"standby", mine, peer.raw)):
            raise HandshakeError("the peer does not hold our cluster.key")
        sock.sendall(_proof(key, b"primary", mine, peer.raw))
        _send_json(sock, hello)
        return _read_json(sock)
    except OSError as err:
        raise HandshakeError(str(err) or type(err).__name__) from err


def as_standby(sock: socket.socket, key: bytes) -> dict[str, Any]:
    """Prove and be proved to; returns what the primary says. Raises HandshakeError."""
    try:
        sock.settimeout(SECONDS)
        peer = _read_greeting(sock)
        mine = _greeting()
        sock.sendall(mine + _proof(key, b"standby", peer.raw, mine))
        proof = _exactly(sock, _PROOF_BYTES)
        if not hmac.compare_digest(proof, _proof(key, b"primary", peer.raw, mine)):
            raise HandshakeError("somebody without our cluster.key")
        return _read_json(sock)
    except OSError as err:
        raise HandshakeError(str(err) or type(err).__name__) from err


def answer(sock: socket.socket, said: dict[str, Any]) -> None:
    """The standby's last word. Raises OSError."""
    _send_json(sock, said)


def _greeting() -> bytes:
    return _GREETING.pack(MAGIC, VERSION, 0, FEATURES, os.urandom(32))


def _read_greeting(sock: socket.socket) -> Greeting:
    raw = _exactly(sock, _GREETING.size)
    magic, version, _, features, _ = _GREETING.unpack(raw)
    if magic != MAGIC:
        raise HandshakeError("not a replicator")
    if version != VERSION:
        raise HandshakeError(f"protocol version {version}, ours is {VERSION}")
    return Greeting(version, features, raw)


def _proof(key: bytes, who: bytes, primary: bytes, standby: bytes) -> bytes:
    return hmac.digest(key, who + b"\0" + primary + standby, hashlib.sha256)


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise HandshakeError("the connection ended")
        data += part
    return data


def _send_json(sock: socket.socket, said: dict[str, Any]) -> None:
    text = json.dumps(said).encode()
    sock.sendall(struct.pack("<I", len(text)) + text)


def _read_json(sock: socket.socket) -> dict[str, Any]:
    (size,) = struct.unpack("<I", _exactly(sock, 4))
    if size > MOST_JSON:
        raise HandshakeError("says too much")
    try:
        said = json.loads(_exactly(sock, size))
    except (ValueError, RecursionError) as err:
        raise HandshakeError("does not speak JSON") from err
    if not isinstance(said, dict):
        raise HandshakeError("does not say an object")
    return said
