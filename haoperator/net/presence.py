# SPDX-License-Identifier: Apache-2.0
"""Is the address there? Asked of the kernel, and told by it when addresses change.

Reading only, by the standard library: rtnetlink(7). The process that keeps a VIP
lives as long as the primary, so it must be small.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from haoperator.net.vip import Vip

_HEADER = struct.Struct("=IHHII")
_ADDRESS = struct.Struct("=BBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_RTM_NEWADDR, _RTM_GETADDR = 20, 22
_NLM_F_REQUEST, _NLM_F_DUMP = 0x001, 0x300
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTMGRP_LINK, _RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 0x001, 0x010, 0x100
_RECEIVE_BYTES = 65536


def watch() -> socket.socket:
    """A socket that becomes readable when any address or interface changes."""
    sock = _route_socket()
    sock.bind((0, _RTMGRP_LINK | _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))
    sock.setblocking(False)
    return sock


def drain(sock: socket.socket) -> None:
    """Forget the news; whoever calls this looks for himself (`present`) afterwards."""
    while True:
        try:
            sock.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            continue  # ENOBUFS: news were lost, which is news enough


def present(vip: Vip) -> bool:
    """Whether the kernel has this address, with this prefix, on this interface."""
    try:
        index = socket.if_nametoindex(vip.interface)
    except OSError:
        return False
    wanted = (index, vip.prefix, vip.packed)
    return any(found == wanted for found in _addresses(vip.family))


def _addresses(family: int) -> Iterator[tuple[int, int, bytes]]:
    """(interface index, prefix length, packed address) of all addresses of a family."""
    with _route_socket() as sock:
        body = _ADDRESS.pack(family, 0, 0, 0, 0)
        flags = _NLM_F_REQUEST | _NLM_F_DUMP
        size = _HEADER.size + len(body)
        sock.send(_HEADER.pack(size, _RTM_GETADDR, flags, 1, 0) + body)
        while True:
            for kind, message in _messages(sock.recv(_RECEIVE_BYTES)):
                if kind == _NLMSG_DONE:
                    return
                if kind == _NLMSG_ERROR:
                    raise OSError(-int.from_bytes(message[:4], "little", signed=True), "netlink")
                if kind == _RTM_NEWADDR and (found := _address(message)):
                    yield found


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _HEADER.size:
        size, kind, _, _, _ = _HEADER.unpack_from(data)
        if size < _HEADER.size:
            return
        yield kind, data[_HEADER.size : size]
        data = data[(size + 3) & ~3 :]


def _address(message: bytes) -> tuple[int, int, bytes] | None:
    _, prefix, _, _, index = _ADDRESS.unpack_from(message)
    found: dict[int, bytes] = {}
    rest = message[_ADDRESS.size :]
    while len(rest) >= _ATTRIBUTE.size:
        size, kind = _ATTRIBUTE.unpack_from(rest)
        if size < _ATTRIBUTE.size:
            break
        found[kind] = rest[_ATTRIBUTE.size : size]
        rest = rest[(size + 3) & ~3 :]
    # On a point-to-point interface IFA_ADDRESS is the other end; IPv6 has no IFA_LOCAL else.
    packed = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
    return (index, prefix, packed) if packed else None


def _route_socket() -> socket.socket:
    return socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    )
