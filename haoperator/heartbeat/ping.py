# SPDX-License-Identifier: Apache-2.0
"""Witnesses that answer a ping.

Every echo carries fresh random bytes, so that an answer names its question: it proves that
the witness could be reached after that, however late it comes.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from haoperator.lean.checksum import checksum
from haoperator.lean import icmp

log = logging.getLogger(__name__)

_TOKEN_BYTES = 16
_REMEMBERED = 16

Answered = Callable[[str, float], None]
"""This target answered the question that was asked at this time."""


class Ping:
    """Asks every address. Time is an input (CLOCK_MONOTONIC)."""

    def __init__(self, addresses: Sequence[str], answered: Answered) -> None:
        self._answered = answered
        self._asked: deque[tuple[bytes, float]] = deque(maxlen=_REMEMBERED)
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
                self._sockets[family] = icmp.open_socket(family)
        return list(self._sockets.values())

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()

    def ask(self, now: float) -> None:
        """One echo to each address."""
        token = os.urandom(_TOKEN_BYTES)
        self._asked.append((token, now))
        self._sequence = (self._sequence + 1) & 0xFFFF
        trouble = ""
        for family, sock in self._sockets.items():
            echo = icmp.echo(family, self._sequence, token)
            for target in self._targets[family]:
                try:
                    sock.sendto(echo, (target, 0))
                except OSError as err:
                    trouble = f"witness {target}: {err.strerror or err}"
        if trouble and trouble != self._trouble:
            log.warning("%s", trouble)
        self._trouble = trouble

    def drain(self) -> None:
        """Read the answers that wait."""
        for family, sock in self._sockets.items():
            while True:
                try:
                    packet, sender = sock.recvfrom(256)
                except OSError:
                    break
                asked_at = dict(self._asked).get(icmp.answered(family, packet))
                if sender[0] in self._targets[family] and asked_at is not None:
                    self._answered(sender[0], asked_at)

    def _asked_at(self, family: socket.AddressFamily, packet: bytes) -> float | None:
        """When the question was asked that this packet answers, None if it answers none."""
        # A raw IPv4 socket delivers the IP header too, an ICMP datagram socket does not.
        if family == socket.AF_INET and packet[:1] and packet[0] >> 4 == 4:
            packet = packet[(packet[0] & 0x0F) * 4 :]
        if len(packet) < _HEADER.size:
            return None
        reply = _REPLY_V4 if family == socket.AF_INET else _REPLY_V6
        token = packet[_HEADER.size :]
        return dict(self._asked).get(token) if packet[0] == reply else None


def _echo(family: socket.AddressFamily, sequence: int, token: bytes) -> bytes:
    identifier = os.getpid() & 0xFFFF
    kind = _ECHO_V4 if family == socket.AF_INET else _ECHO_V6
    unsummed = _HEADER.pack(kind, 0, 0, identifier, sequence) + token
    if family == socket.AF_INET6:
        return unsummed  # the kernel sums ICMPv6
    return _HEADER.pack(kind, 0, checksum(unsummed), identifier, sequence) + token


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
