# SPDX-License-Identifier: Apache-2.0
"""ICMP echo without an external `ping`: RFC 792, RFC 4443, icmp(7)."""

from __future__ import annotations

import os
import socket
import struct

from haoperator.lean.checksum import checksum

_ECHO_V4, _REPLY_V4 = 8, 0
_ECHO_V6, _REPLY_V6 = 128, 129
_HEADER = struct.Struct("!BBHHH")
_SOL_RAW, _ICMP_FILTER = 255, 1


def open_socket(family: socket.AddressFamily) -> socket.socket:
    """Does not block. An ICMP datagram socket where this process may have one, else raw.

    Raises OSError if this process may not ping.
    """
    protocol = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
    kind = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    try:
        return socket.socket(family, socket.SOCK_DGRAM | kind, protocol)
    except PermissionError:
        sock = socket.socket(family, socket.SOCK_RAW | kind, protocol)
        if family == socket.AF_INET:
            only_replies = ~(1 << _REPLY_V4) & 0xFFFFFFFF
            sock.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", only_replies))
        return sock


def echo(family: socket.AddressFamily, sequence: int, token: bytes) -> bytes:
    """A question that carries `token`."""
    identifier = os.getpid() & 0xFFFF
    kind = _ECHO_V4 if family == socket.AF_INET else _ECHO_V6
    unsummed = _HEADER.pack(kind, 0, 0, identifier, sequence) + token
    if family == socket.AF_INET6:
        return unsummed  # the kernel sums ICMPv6
    return _HEADER.pack(kind, 0, checksum(unsummed), identifier, sequence) + token


def answered(family: socket.AddressFamily, packet: bytes) -> bytes:
    """The token that an answer brings back, empty if it is something else."""
    # A raw IPv4 socket delivers the IP header too, an ICMP datagram socket does not.
    if family == socket.AF_INET and packet[:1] and packet[0] >> 4 == 4:
        packet = packet[(packet[0] & 0x0F) * 4 :]
    reply = _REPLY_V4 if family == socket.AF_INET else _REPLY_V6
    if len(packet) < _HEADER.size or packet[0] != reply:
        return b""
    return packet[_HEADER.size :]
