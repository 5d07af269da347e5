# SPDX-License-Identifier: Apache-2.0
"""Ethernet frames about where an address lives: ARP for IPv4, neighbour discovery for IPv6.

An *announcement* tells everybody where it lives now: gratuitous ARP as a request and as
a reply (RFC 5227; some equipment heeds only one of them), or an unsolicited neighbour
advertisement with the override flag to all nodes (RFC 4861, 7.2.6).

A *probe* asks who has it, in the form that detects duplicates: without an address of
the sender's own (RFC 5227, 2.1.1; RFC 4862, 5.4.2), so that it leaves no trace in
anybody's tables, and works on an interface that has no address yet.

A *claim* is a frame whose sender says that the address is his: an ARP request or
reply with it as the sender's address, or a neighbour advertisement for it. A probe is
no claim: nodes that only look at an address send them all the time.

Addresses are packed: 4 bytes are IPv4, 16 are IPv6.
"""

from __future__ import annotations

import struct

from haoperator.lean.checksum import checksum

ARP, IPV6 = 0x0806, 0x86DD
"""The EtherTypes, and so the packet sockets' protocols."""

_BROADCAST = b"\xff" * 6
_ALL_NODES = bytes.fromhex("ff020000000000000000000000000001")
_SOLICITED_NODE = bytes.fromhex("ff0200000000000000000001ff")
_UNSPECIFIED = bytes(16)
_REQUEST, _REPLY = 1, 2
_ICMPV6, _SOLICITATION, _ADVERTISEMENT, _OVERRIDE = 58, 135, 136, 0x20000000
_TARGET_LINK_LAYER = 2
_HOP_LIMIT = 255  # a router would have made it less: it comes from this segment

_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_ARP_HEAD = (1, 0x0800, 6, 4)  # Ethernet and IPv4
_IPV6 = struct.Struct("!IHBB16s16s")
_NEIGHBOUR = struct.Struct("!BBHI16s")


def announcement(address: bytes, mac: bytes) -> list[bytes]:
    """The frames that tell everybody that `address` is at `mac`."""
    if len(address) == 16:
        option = bytes([_TARGET_LINK_LAYER, 1]) + mac
        return [_neighbour(_ADVERTISEMENT, _OVERRIDE, address, mac, address, _ALL_NODES, option)]
    # In a gratuitous reply the target is everybody, in a request it is not known.
    return [
        _arp(_REQUEST, mac, address, bytes(6), address),
        _arp(_REPLY, mac, address, _BROADCAST, address),
    ]


def probe(address: bytes, mac: bytes) -> bytes:
    """The frame by which the machine at `mac` asks whether anybody has `address`."""
    if len(address) == 16:
        group = _SOLICITED_NODE + address[13:]
        return _neighbour(_SOLICITATION, 0, address, mac, _UNSPECIFIED, group)
    return _arp(_REQUEST, mac, bytes(4), bytes(6), address)


def claims(address: bytes) -> list[tuple[int, bytes]]:
    """Bytes and offsets that every claim to `address` has, for `packet_filter.attach`."""
    if len(address) == 16:
        return [(20, bytes([_ICMPV6])), (54, bytes([_ADVERTISEMENT])), (62, address)]
    return [(28, address)]


def claimant(frame: bytes, address: bytes) -> bytes | None:
    """The MAC address of the machine that claims `address` by this frame, None if none does."""
    if len(frame) < _ETHERNET.size:
        return None
    _, source, kind = _ETHERNET.unpack_from(frame)
    packet = frame[_ETHERNET.size :]
    if kind == ARP and len(address) == 4:
        mac = _from_arp(packet, address)
    elif kind == IPV6 and len(address) == 16:
        mac = _from_advertisement(packet, address, source)
    else:
        return None
    # No machine has a group address or none at all.
    return None if mac is None or mac[0] & 1 or not any(mac) else mac


def _arp(operation: int, mac: bytes, sender: bytes, target_mac: bytes, target: bytes) -> bytes:
    body = _ARP.pack(*_ARP_HEAD, operation, mac, sender, target_mac, target)
    # Filled up to the least length of an Ethernet frame.
    return _ETHERNET.pack(_BROADCAST, mac, ARP) + body + bytes(18)


def _from_arp(packet: bytes, address: bytes) -> bytes | None:
    if len(packet) < _ARP.size:
        return None
    *head, operation, mac, sender, _, _ = _ARP.unpack_from(packet)
    right = tuple(head) == _ARP_HEAD and operation in (_REQUEST, _REPLY)
    return bytes(mac) if right and sender == address else None


def _neighbour(
    kind: int,
    flags: int,
    target: bytes,
    mac: bytes,
    source: bytes,
    group: bytes,
    option: bytes = b"",
) -> bytes:
    size = _NEIGHBOUR.size + len(option)
    unsummed = _NEIGHBOUR.pack(kind, 0, 0, flags, target) + option
    summed = checksum(_pseudo_header(source, group, size) + unsummed)
    message = _NEIGHBOUR.pack(kind, 0, summed, flags, target) + option
    header = _IPV6.pack(6 << 28, size, _ICMPV6, _HOP_LIMIT, source, group)
    return _ETHERNET.pack(b"\x33\x33" + group[12:], mac, IPV6) + header + message


def _from_advertisement(packet: bytes, address: bytes, source_mac: bytes) -> bytes | None:
    """RFC 4861, 7.1.2: what a valid advertisement is. Only one with extension headers is
    valid and not understood here; nobody sends those."""
    if len(packet) < _IPV6.size + _NEIGHBOUR.size:
        return None
    first, size, following, hops, source, group = _IPV6.unpack_from(packet)
    message = packet[_IPV6.size : _IPV6.size + size]
    if (first >> 28, following, hops) != (6, _ICMPV6, _HOP_LIMIT) or len(message) != size:
        return None
    if size < _NEIGHBOUR.size or checksum(_pseudo_header(source, group, size) + message):
        return None
    kind, code, _, _, target = _NEIGHBOUR.unpack_from(message)
    if (kind, code, target) != (_ADVERTISEMENT, 0, address):
        return None
    options = message[_NEIGHBOUR.size :]
    mac = source_mac
    while options:
        length = 8 * options[1] if len(options) > 1 else 0
        if not 0 < length <= len(options):
            return None
        if options[0] == _TARGET_LINK_LAYER and length == 8:
            mac = options[2:8]
        options = options[length:]
    return mac


def _pseudo_header(source: bytes, destination: bytes, size: int) -> bytes:
    return source + destination + struct.pack("!II", size, _ICMPV6)
