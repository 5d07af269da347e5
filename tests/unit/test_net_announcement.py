# SPDX-License-Identifier: Apache-2.0
"""The frames that move an address, byte by byte."""

from __future__ import annotations

import socket
import struct

from haoperator.net.announcement import frames
from haoperator.net.vip import Vip

MAC = bytes.fromhex("02ab00000001")


def test_ipv4_is_announced_as_request_and_as_reply() -> None:
    address = socket.inet_aton("10.0.0.100")
    request, reply = frames(Vip("front", "10.0.0.100", 24, "eth0"), MAC)
    for frame, operation, target in ((request, 1, bytes(6)), (reply, 2, b"\xff" * 6)):
        assert len(frame) == 60  # the least length of an Ethernet frame without checksum
        assert frame[:14] == b"\xff" * 6 + MAC + b"\x08\x06"
        assert frame[14:22] == bytes.fromhex("0001080006040000")[:7] + bytes([operation])
        assert frame[22:42] == MAC + address + target + address


def test_ipv6_is_announced_with_override_and_a_right_checksum() -> None:
    (frame,) = frames(Vip("front", "fd00::64", 64, "eth0"), MAC)
    address = socket.inet_pton(socket.AF_INET6, "fd00::64")
    assert frame[:14] == bytes.fromhex("333300000001") + MAC + b"\x86\xdd"
    header, message = frame[14:54], frame[54:]
    assert header[6:8] == bytes([58, 255])  # ICMPv6; the hop limit that neighbours insist on
    assert header[8:24] == address
    assert message[0] == 136
    assert message[4:8] == b"\x20\x00\x00\x00"  # override, neither router nor solicited
    assert message[8:] == address + b"\x02\x01" + MAC
    # A message with a right checksum sums up to nothing, its pseudo header included.
    pseudo = header[8:40] + struct.pack("!II", len(message), 58)
    total = sum(struct.unpack(f"!{len(pseudo + message) // 2}H", pseudo + message))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF


def test_vip_survives_a_command_line() -> None:
    vip = Vip("front", "fd00::64", 64, "eth0")
    assert Vip.parse(vip.arguments).arguments == vip.arguments
    assert vip.family == socket.AF_INET6
