# SPDX-License-Identifier: Apache-2.0
"""Telling the segment where an address lives now.

IPv4: gratuitous ARP as a request and as a reply (RFC 5227; some equipment heeds
only one of them). IPv6: an unsolicited neighbour advertisement with the override
flag (RFC 4861, 7.2.6).
"""

from __future__ import annotations

import socket
import struct

from haoperator.net.vip import Vip

BURST = 5
BURST_SECONDS = 0.2
"""The burst outlives a switch port that learns slowly or drops a frame."""
REPEAT_SECONDS = 10.0
"""Afterwards now and then, for whoever missed all of it."""

_ETH_P_ARP, _ETH_P_IPV6 = 0x0806, 0x86DD
_BROADCAST = b"\xff" * 6
_ALL_NODES_MAC = bytes.fromhex("333300000001")
_ALL_NODES = socket.inet_pton(socket.AF_INET6, "ff02::1")
_ICMPV6, _ADVERTISEMENT, _OVERRIDE = 58, 136, 0x20000000


def announce(vip: Vip) -> None:
    """Send one announcement. Raises OSError if the interface is down or away.

    A new socket each time: an interface may have gone and come back with another
    index or hardware address.
    """
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC) as sock:
        sock.bind((vip.interface, 0))  # protocol 0: it receives nothing
        mac = sock.getsockname()[4]
        if len(mac) != 6:
            return  # no Ethernet: no neighbours to tell
        for frame in frames(vip, mac):
            sock.send(frame)


def frames(vip: Vip, mac: bytes) -> list[bytes]:
    """The Ethernet frames of one announcement."""
    if vip.family == socket.AF_INET6:
        return [_advertisement(vip.packed, mac)]
    return [_arp(1, vip.packed, mac), _arp(2, vip.packed, mac)]


def _arp(operation: int, address: bytes, mac: bytes) -> bytes:
    # In a gratuitous reply the target is everybody, in a request it is not known.
    target = _BROADCAST if operation == 2 else bytes(6)
    head = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation)
    return (
        _BROADCAST
        + mac
        + _ETH_P_ARP.to_bytes(2, "big")
        + head
        + mac
        + address
        + target
        + address
        + bytes(18)  # up to the least length of an Ethernet frame
    )


def _advertisement(address: bytes, mac: bytes) -> bytes:
    option = b"\x02\x01" + mac  # target link-layer address

    def message(checksum: int) -> bytes:
        head = struct.pack("!BBHI", _ADVERTISEMENT, 0, checksum, _OVERRIDE)
        return head + address + option

    size = len(message(0))
    pseudo = address + _ALL_NODES + struct.pack("!II", size, _ICMPV6)
    packet = message(_checksum(pseudo + message(0)))
    header = struct.pack("!IHBB", 6 << 28, size, _ICMPV6, 255) + address + _ALL_NODES
    return _ALL_NODES_MAC + mac + _ETH_P_IPV6.to_bytes(2, "big") + header + packet


def _checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
