# SPDX-License-Identifier: Apache-2.0
"""What is a heartbeat of the peer, and what is not."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haoperator.heartbeat.packet import (
    MAX_PACKET_BYTES,
    MAX_STATUS_BYTES,
    NOBODY,
    Codec,
    Packet,
    Rejected,
)

CODEC = Codec("shop", b"k" * 32)
PACKET = Packet("node-a", b"A" * 8, NOBODY, 7, 1, b'{"phase":"second"}')

packets = st.builds(
    Packet,
    sender=st.text(min_size=1, max_size=16),
    incarnation=st.binary(min_size=8, max_size=8),
    echo=st.binary(min_size=8, max_size=8),
    sequence=st.integers(0, 2**64 - 1),
    link=st.integers(0, 255),
    status=st.binary(max_size=MAX_STATUS_BYTES),
)


@given(packets)
def test_packet_survives_the_wire(packet: Packet) -> None:
    datagram = CODEC.encode(packet)
    assert CODEC.decode(datagram) == packet
    assert len(datagram) <= MAX_PACKET_BYTES <= 1400  # never fragmented


@given(st.binary(max_size=1500))
def test_garbage_is_rejected(garbage: bytes) -> None:
    with pytest.raises(Rejected):
        CODEC.decode(garbage)


def test_every_changed_bit_is_rejected() -> None:
    datagram = CODEC.encode(PACKET)
    for bit in range(len(datagram) * 8):
        changed = bytearray(datagram)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Rejected):
            CODEC.decode(bytes(changed))


@given(st.integers(0, len(CODEC.encode(PACKET)) - 1))
def test_truncated_packet_is_rejected(length: int) -> None:
    with pytest.raises(Rejected):
        CODEC.decode(CODEC.encode(PACKET)[:length])


def test_other_key_is_named_as_the_likely_reason() -> None:
    with pytest.raises(Rejected, match=r"same cluster\.key"):
        Codec("shop", b"other" * 6).decode(CODEC.encode(PACKET))


def test_other_cluster_and_other_version_are_told_apart() -> None:
    with pytest.raises(Rejected, match="another cluster"):
        Codec("bakery", b"k" * 32).decode(CODEC.encode(PACKET))
    with pytest.raises(Rejected, match="protocol version 9"):
        CODEC.decode(b"\x09" + CODEC.encode(PACKET)[1:])


def test_status_that_does_not_fit_is_refused_by_the_sender() -> None:
    with pytest.raises(ValueError, match="at most 1200"):
        CODEC.encode(dataclasses.replace(PACKET, status=b"x" * (MAX_STATUS_BYTES + 1)))
