# SPDX-License-Identifier: Apache-2.0
"""Asking the kernel about its network by netlink(7), with the standard library.

For processes that live as long as the primary, and must be small.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

ACK, DUMP = 0x004, 0x300
"""Flags of a request: answer that it was done; answer with all there is."""

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ADDRESS = struct.Struct("=BBBBI")
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLM_F_REQUEST = 0x001
_TYPE_MASK = 0x3FFF  # above it are flags: nested, network byte order
_RTM_NEWADDR, _RTM_GETADDR = 20, 22
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTMGRP_LINK, _RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 0x001, 0x010, 0x100
_SOL_NETLINK, _NETLINK_GET_STRICT_CHK = 270, 12
_RECEIVE_BYTES = 65536


def watch() -> socket.socket:
    """A socket that becomes readable when any address or interface changes."""
    sock = _open(socket.NETLINK_ROUTE)
    sock.bind((0, _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))
    sock.setblocking(False)
    return sock


def drain(sock: socket.socket) -> None:
    """Forget the news; whoever calls this looks for himself afterwards."""
    while True:
        try:
            sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            continue  # ENOBUFS: news were lost, which is news enough


def addresses(family: int, index: int) -> Iterator[tuple[int, bytes]]:
    """(prefix length, packed address) of all addresses of a family on one interface."""
    body = _ADDRESS.pack(family, 0, 0, 0, index)
    for kind, message in ask(socket.NETLINK_ROUTE, _RTM_GETADDR, DUMP, body):
        if kind != _RTM_NEWADDR:
            continue
        _, prefix, _, _, at = _ADDRESS.unpack_from(message)
        found = attributes(message[_ADDRESS.size :])
        # On a point-to-point interface IFA_ADDRESS is the other end; IPv6 has no IFA_LOCAL else.
        packed = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
        if packed and at == index:
            yield prefix, packed


def ask(protocol: int, kind: int, flags: int, body: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, message) of what the kernel answers to one request. Raises its OSError."""
    with _open(protocol) as sock:
        if protocol == socket.NETLINK_ROUTE:
            # Without it, the kernel ignores by what a request narrows down a dump.
            sock.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        size = _HEADER.size + len(body)
        sock.send(_HEADER.pack(size, kind, _NLM_F_REQUEST | flags, 1, 0) + body)
        while True:
            for answered, message in _messages(sock.recv(_RECEIVE_BYTES)):
                if answered == _NLMSG_DONE:
                    return
                if answered == _NLMSG_ERROR:
                    (code,) = struct.unpack_from("=i", message)
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return
                yield answered, message


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in a message, or in an attribute that nests them."""
    found: dict[int, bytes] = {}
    while len(data) >= _ATTRIBUTE.size:
        size, kind = _ATTRIBUTE.unpack_from(data)
        if size < _ATTRIBUTE.size:
            break
        found[kind & _TYPE_MASK] = data[_ATTRIBUTE.size : size]
        data = data[(size + 3) & ~3 :]
    return found


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _HEADER.size:
        size, kind, _, _, _ = _HEADER.unpack_from(data)
        if size < _HEADER.size:
            return
        yield kind, data[_HEADER.size : size]
        data = data[(size + 3) & ~3 :]


def _open(protocol: int) -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
