# SPDX-License-Identifier: Apache-2.0
"""The TCP connections of clients to a VIP: those that end on this node, and those that are
passed on to a container or a virtual machine."""

from __future__ import annotations

import errno
import itertools
import socket
import struct
import time
from collections.abc import Iterator

from haoperator.lean import netlink
from haoperator.net.vip import Vip

Connection = tuple[bytes, int, int]
"""Packed address and port of the client, port of the VIP."""


# -- that end here: sock_diag(7)

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY, _SOCK_DESTROY = 20, 21
_DIAG_REQUEST = struct.Struct("=BBBBI")
_DIAG_ID = struct.Struct("=HH16s16sI8s")
_DIAG_HEAD_BYTES = 4
_NO_ID = bytes(_DIAG_ID.size)
_ALL_STATES = 0xFFFFFFFF
_TIME_WAIT, _CLOSE, _LISTEN = 6, 7, 10
_CONNECTED = 0xFFF & ~(1 << _TIME_WAIT | 1 << _CLOSE | 1 << _LISTEN)


def destroy_local(vip: Vip, end: float) -> int:
    """Abort every connection that ends on this node at the VIP: both sides are told at once.

    Returns how many, by `end` on CLOCK_MONOTONIC. Raises OSError, EOPNOTSUPP where the kernel
    was built without CONFIG_INET_DIAG_DESTROY (Debian's has it).
    """
    destroyed = 0
    for family, ident in list(_local(vip)):
        if time.monotonic() >= end:
            break
        request = _DIAG_REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, _ALL_STATES) + ident
        try:
            tuple(netlink.ask(_NETLINK_SOCK_DIAG, _SOCK_DESTROY, netlink.ACK, request))
        except OSError as err:
            if err.errno != errno.ENOENT:  # it ended by itself
                raise
        destroyed += 1
    return destroyed


def _local(vip: Vip) -> Iterator[tuple[int, bytes]]:
    """(family, the kernel's id) of each socket whose own address is the VIP."""
    wanted = {vip.family: vip.packed.ljust(16, b"\0")}
    if vip.family == socket.AF_INET:
        # A socket that listens to both families sees IPv4 clients so.
        wanted[socket.AF_INET6] = bytes(10) + b"\xff\xff" + vip.packed
    for family, own in wanted.items():
        request = _DIAG_REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, _CONNECTED) + _NO_ID
        answers = netlink.ask(_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, netlink.DUMP, request)
        for kind, message in answers:
            ident = message[_DIAG_HEAD_BYTES : _DIAG_HEAD_BYTES + _DIAG_ID.size]
            if kind == _SOCK_DIAG_BY_FAMILY and _DIAG_ID.unpack(ident)[2] == own:
                yield family, ident


# -- that are passed on: the connection tracking of NAT

_TRACKS = "/proc/sys/net/netfilter/nf_conntrack_count"
_NETLINK_NETFILTER = 12
_CONNTRACK_NEW, _CONNTRACK_GET = 0x100, 0x101
_NFGENMSG = struct.Struct("=BBH")
_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY, _CTA_PROTOINFO, _CTA_FILTER = 1, 2, 4, 25
_CTA_TUPLE_IP, _CTA_TUPLE_PROTO = 1, 2
_CTA_PROTO_NUM, _CTA_PROTO_SOURCE_PORT, _CTA_PROTO_DESTINATION_PORT = 1, 2, 3
_CTA_SOURCE = {socket.AF_INET: 1, socket.AF_INET6: 3}
_CTA_DESTINATION = {socket.AF_INET: 2, socket.AF_INET6: 4}
_CTA_PROTOINFO_TCP, _CTA_PROTOINFO_TCP_STATE = 1, 1
_CTA_FILTER_ORIG_FLAGS = 1
_BY_DESTINATION, _BY_PROTOCOL = 1 << 1, 1 << 3
_ALIVE = range(2, 6)  # SYN_RECV, ESTABLISHED, FIN_WAIT, CLOSE_WAIT: one side has not ended


def forwarded(vip: Vip, end: float) -> list[Connection]:
    """The connections to the VIP that NAT passes on to somebody else, as many as are found
    by `end` on CLOCK_MONOTONIC. Raises OSError."""
    try:
        with open(_TRACKS, encoding="ascii") as count:
            if int(count.read()) == 0:
                return []
    except FileNotFoundError:
        return []  # nothing is tracked, so there is no NAT
    return list(itertools.takewhile(lambda _: time.monotonic() < end, _tracked(vip)))


def _tracked(vip: Vip) -> Iterator[Connection]:
    for kind, message in netlink.ask(
        _NETLINK_NETFILTER, _CONNTRACK_GET, netlink.DUMP, _those_to(vip)
    ):
        if kind != _CONNTRACK_NEW:
            continue
        entry = netlink.attributes(message[_NFGENMSG.size :])
        asked, answer = (
            netlink.attributes(entry.get(which, b""))
            for which in (_CTA_TUPLE_ORIG, _CTA_TUPLE_REPLY)
        )
        addresses = netlink.attributes(asked.get(_CTA_TUPLE_IP, b""))
        behind = netlink.attributes(answer.get(_CTA_TUPLE_IP, b""))
        protocol = netlink.attributes(asked.get(_CTA_TUPLE_PROTO, b""))
        details = netlink.attributes(entry.get(_CTA_PROTOINFO, b""))
        state = netlink.attributes(details.get(_CTA_PROTOINFO_TCP, b""))
        if (
            addresses.get(_CTA_DESTINATION[vip.family]) == vip.packed
            and behind.get(_CTA_SOURCE[vip.family]) != vip.packed
            and state.get(_CTA_PROTOINFO_TCP_STATE, b"\0")[0] in _ALIVE
        ):
            yield (
                addresses[_CTA_SOURCE[vip.family]],
                int.from_bytes(protocol[_CTA_PROTO_SOURCE_PORT], "big"),
                int.from_bytes(protocol[_CTA_PROTO_DESTINATION_PORT], "big"),
            )


def _those_to(vip: Vip) -> bytes:
    """A request that lets the kernel choose (Linux 5.8); a busy node tracks 100,000s.

    By an IPv6 address it chooses the wrong ones (seen with 6.18), so by the protocol alone.
    """
    chosen = _nested(_CTA_TUPLE_PROTO, _attribute(_CTA_PROTO_NUM, bytes([socket.IPPROTO_TCP])))
    by = _BY_PROTOCOL
    if vip.family == socket.AF_INET:
        to = _attribute(_CTA_DESTINATION[vip.family], vip.packed)
        chosen += _nested(_CTA_TUPLE_IP, to)
        by |= _BY_DESTINATION
    tuples = _nested(_CTA_TUPLE_ORIG, chosen)
    flags = _nested(_CTA_FILTER, _attribute(_CTA_FILTER_ORIG_FLAGS, struct.pack("=I", by)))
    return _NFGENMSG.pack(vip.family, 0, 0) + tuples + flags


def _nested(kind: int, content: bytes) -> bytes:
    return _attribute(kind | 0x8000, content)


def _attribute(kind: int, content: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(content), kind) + content + bytes(-len(content) % 4)
