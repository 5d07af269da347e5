# SPDX-License-Identifier: Apache-2.0
"""The frames that ask for an address, move it, and claim it, byte by byte."""

from __future__ import annotations

import random
import socket
import struct

import pytest

from haoperator.lean.checksum import checksum
from haoperator.lean.resolution import announcement, claimant, probe

MAC = bytes.fromhex("02ab00000001")
FOUR = socket.inet_aton("10.0.0.100")
SIX = socket.inet_pton(socket.AF_INET6, "fd00::64")
BOTH = pytest.mark.parametrize("address", [FOUR, SIX], ids=["IPv4", "IPv6"])


def test_checksum_is_that_of_rfc_1071() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D
    assert checksum(b"\x01") == 0xFEFF


def test_ipv4_is_announced_as_request_and_as_reply() -> None:
    request, reply = announcement(FOUR, MAC)
    for frame, operation, target in ((request, 1, bytes(6)), (reply, 2, b"\xff" * 6)):
        assert len(frame) == 60  # the least length of an Ethernet frame without checksum
        assert frame[:14] == b"\xff" * 6 + MAC + b"\x08\x06"
        assert frame[14:22] == bytes.fromhex("0001080006040000")[:7] + bytes([operation])
        assert frame[22:42] == MAC + FOUR + target + FOUR


def test_ipv6_is_announced_with_override_and_a_right_checksum() -> None:
    (frame,) = announcement(SIX, MAC)
    assert frame[:14] == bytes.fromhex("333300000001") + MAC + b"\x86\xdd"
    header, message = frame[14:54], frame[54:]
    assert header[6:8] == bytes([58, 255])  # ICMPv6; the hop limit that neighbours insist on
    assert header[8:24] == SIX
    assert message[0] == 136
    assert message[4:8] == b"\x20\x00\x00\x00"  # override, neither router nor solicited
    assert message[8:] == SIX + b"\x02\x01" + MAC
    # A message with a right checksum sums up to nothing, its pseudo header included.
    assert checksum(header[8:40] + struct.pack("!II", len(message), 58) + message) == 0


def test_probe_of_ipv4_names_no_sender() -> None:
    frame = probe(FOUR, MAC)
    assert frame[:22] == b"\xff" * 6 + MAC + bytes.fromhex("08060001080006040001")
    assert frame[22:42] == MAC + bytes(4) + bytes(6) + FOUR


def test_probe_of_ipv6_names_no_sender_and_goes_to_the_address_group() -> None:
    frame = probe(SIX, MAC)
    assert frame[:14] == bytes.fromhex("3333ff000064") + MAC + b"\x86\xdd"
    header, message = frame[14:54], frame[54:]
    assert header[8:24] == bytes(16)
    assert header[24:40] == socket.inet_pton(socket.AF_INET6, "ff02::1:ff00:64")
    assert message[0] == 135
    assert message[8:] == SIX  # and no option: RFC 4861 forbids it here
    assert checksum(header[8:40] + struct.pack("!II", len(message), 58) + message) == 0


@BOTH
def test_announcement_is_a_claim_to_this_address_alone(address: bytes) -> None:
    for frame in announcement(address, MAC):
        assert claimant(frame, address) == MAC
        assert claimant(frame + b"trailer", address) == MAC
        for other in (FOUR, SIX, address[:-1] + b"\x65"):
            assert other == address or claimant(frame, other) is None


@BOTH
def test_probe_is_no_claim(address: bytes) -> None:
    assert claimant(probe(address, MAC), address) is None


def test_advertisement_without_an_option_is_of_whoever_sent_it() -> None:
    (frame,) = announcement(SIX, MAC)
    message = frame[54:56] + bytes(2) + frame[58:78]
    pseudo = frame[22:54] + struct.pack("!II", len(message), 58)
    message = message[:2] + checksum(pseudo + message).to_bytes(2, "big") + message[4:]
    plain = frame[:18] + len(message).to_bytes(2, "big") + frame[20:54] + message
    assert claimant(plain, SIX) == MAC


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (12, b"\x86\xdd"),  # IPv6
        (14, b"\x00\x06"),  # not Ethernet
        (16, b"\x86\xdd"),  # not of IPv4
        (18, b"\x08"),  # a MAC address of another length
        (19, b"\x10"),
        (20, b"\x00\x03"),  # reverse ARP
        (22, b"\xff" * 6),  # nobody's MAC address
        (22, bytes(6)),
        (28, bytes(4)),  # a probe
    ],
)
def test_arp_that_is_not_in_order_claims_nothing(offset: int, value: bytes) -> None:
    frame = bytearray(announcement(FOUR, MAC)[1])
    frame[offset : offset + len(value)] = value
    assert claimant(bytes(frame), FOUR) is None


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (12, b"\x08\x06"),
        (14, b"\x50"),  # no IPv6
        (18, b"\x00\x17"),  # too short for an advertisement
        (18, b"\x00\xff"),  # longer than the frame
        (20, b"\x3b"),  # not ICMPv6
        (21, b"\xfe"),  # it came through a router
        (23, b"\x01"),  # the checksum is wrong
        (54, b"\x87"),  # a solicitation
        (55, b"\x01"),
        (62, bytes(16)),  # for another address
        (79, b"\x00"),  # an option without a length would never end
        (79, b"\x02"),  # and one of more than there is
    ],
)
def test_advertisement_that_is_not_in_order_claims_nothing(offset: int, value: bytes) -> None:
    frame = bytearray(announcement(SIX, MAC)[0])
    frame[offset : offset + len(value)] = value
    if offset >= 54 or offset == 20:  # so that it is refused for its content
        frame[56:58] = bytes(2)
        pseudo = frame[22:54] + struct.pack("!II", len(frame) - 54, frame[20])
        frame[56:58] = checksum(bytes(pseudo + frame[54:])).to_bytes(2, "big")
    assert claimant(bytes(frame), SIX) is None


@BOTH
def test_cut_and_changed_frames_are_read_without_an_error(address: bytes) -> None:
    chance = random.Random(4)
    for frame in [*announcement(address, MAC), probe(address, MAC)]:
        for size in range(42 if address == FOUR else len(frame)):
            assert claimant(frame[:size], address) is None
        for _ in range(2000):
            rubbish = bytearray(frame)
            for _ in range(chance.randrange(1, 5)):
                rubbish[chance.randrange(12, len(rubbish))] = chance.randrange(256)
            claimant(bytes(rubbish[: chance.randrange(len(rubbish) + 1)]), address)
            claimant(chance.randbytes(chance.randrange(100)), address)
