# SPDX-License-Identifier: Apache-2.0
"""The witness: addresses that answer a ping unless this node is the isolated one.

ICMP echo without an external `ping`. Every echo carries fresh random bytes, so that
only an answer to a question of this process counts.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
from collections import deque
from collections.abc import Sequence
from enum import StrEnum
from ipaddress import ip_address

log = logging.getLogger(__name__)

MAX_PERIOD = 0.5

_ECHO_V4, _REPLY_V4 = 8, 0
_ECHO_V6, _REPLY_V6 = 128, 129
_HEADER = struct.Struct("!BBHHH")
_TOKEN_BYTES = 16
_SOL_RAW, _ICMP_FILTER = 255, 1
_REMEMBERED = 16


class Reach(StrEnum):
    NONE = "none"
    REACHABLE = "reachable"
    UNREACHABLE = "unreachable"


def freshness(detect: float) -> float:
    """How old an answer may be, in seconds.

    When the peer is declared silent, `detect` after its last heartbeat, the witness must
    have answered *after* the paths were cut, or its answer says nothing of who is isolated:
    `heartbeat + freshness < detect`. The configuration demands `detect >= 3 * heartbeat`.
    """
    return detect / 2


def period(detect: float) -> float:
    """How often to ask: four times within the freshness, and twice a second at least."""
    return min(freshness(detect) / 4, MAX_PERIOD)


class Witness:
    """Asks every address; one fresh answer is enough. Time is an input."""

    def __init__(self, addresses: Sequence[str], detect: float) -> None:
        self._freshness = freshness(detect)
        self._answered_at: float | None = None
        self._tokens: deque[bytes] = deque(maxlen=_REMEMBERED)
        self._sequence = 0
        self._targets = {socket.AF_INET: set[str](), socket.AF_INET6: set[str]()}
        for text in addresses:
            address = ip_address(text)
            family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
            self._targets[family].add(str(address))
        self._sockets: dict[socket.AddressFamily, socket.socket] = {}
        self._trouble = ""

    def open(self) -> list[socket.socket]:
        """The sockets to read from. Raises OSError if this process may not ping."""
        for family, targets in self._targets.items():
            if targets and family not in self._sockets:
                self._sockets[family] = _icmp_socket(family)
        return list(self._sockets.values())

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()

    def ask(self) -> None:
        """One echo to each address."""
        token = os.urandom(_TOKEN_BYTES)
        self._tokens.append(token)
        self._sequence = (self._sequence + 1) & 0xFFFF
        trouble = ""
        for family, sock in self._sockets.items():
            echo = _echo(family, self._sequence, token)
            for target in self._targets[family]:
                try:
                    sock.sendto(echo, (target, 0))
                except OSError as err:
                    trouble = f"witness {target}: {err.strerror or err}"
        if trouble and trouble != self._trouble:
            log.warning("%s", trouble)
        self._trouble = trouble

    def drain(self, now: float) -> None:
        """Read the answers that wait."""
        for family, sock in self._sockets.items():
            while True:
                try:
                    packet, sender = sock.recvfrom(256)
                except OSError:
                    break
                if sender[0] in self._targets[family] and self._is_answer(family, packet):
                    self._answered_at = now

    def reach(self, now: float) -> Reach:
        """The level that the operator sees."""
        if not any(self._targets.values()):
            return Reach.NONE
        if self._answered_at is not None and now - self._answered_at <= self._freshness:
            return Reach.REACHABLE
        return Reach.UNREACHABLE

    def _is_answer(self, family: socket.AddressFamily, packet: bytes) -> bool:
        # A raw IPv4 socket delivers the IP header too, an ICMP datagram socket does not.
        if family == socket.AF_INET and packet[:1] and packet[0] >> 4 == 4:
            packet = packet[(packet[0] & 0x0F) * 4 :]
        if len(packet) < _HEADER.size:
            return False
        reply = _REPLY_V4 if family == socket.AF_INET else _REPLY_V6
        token = packet[_HEADER.size :]
        return packet[0] == reply and token in self._tokens


def _echo(family: socket.AddressFamily, sequence: int, token: bytes) -> bytes:
    identifier = os.getpid() & 0xFFFF
    kind = _ECHO_V4 if family == socket.AF_INET else _ECHO_V6
    unsummed = _HEADER.pack(kind, 0, 0, identifier, sequence) + token
    if family == socket.AF_INET6:
        return unsummed  # the kernel sums ICMPv6
    return _HEADER.pack(kind, 0, checksum(unsummed), identifier, sequence) + token


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _icmp_socket(family: socket.AddressFamily) -> socket.socket:
    """Raw where allowed; an ICMP datagram socket is the unprivileged way (icmp(7))."""
    protocol = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
    try:
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, protocol)
    except PermissionError:
        sock = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
        if family == socket.AF_INET:
            only_replies = ~(1 << _REPLY_V4) & 0xFFFFFFFF
            sock.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", only_replies))
    return sock
