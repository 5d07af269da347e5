# SPDX-License-Identifier: Apache-2.0
"""The witness: only an answer to our own question counts, and only while it is fresh."""

from __future__ import annotations

import select
import time

import pytest

from haoperator.heartbeat.witness import Reach, Witness, checksum, period


def test_checksum_is_that_of_rfc_1071() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D
    assert checksum(b"\x01") == 0xFEFF


def test_asked_four_times_within_the_freshness_and_twice_a_second() -> None:
    assert period(2.0) == 0.25
    assert period(30.0) == 0.5


def test_without_addresses_there_is_no_witness() -> None:
    assert Witness((), 2.0).reach(0.0) is Reach.NONE


@pytest.fixture(params=["127.0.0.1", "::1"])
def witness(request: pytest.FixtureRequest) -> Witness:
    return Witness((request.param,), detect=1.0)


def test_real_answer_counts_while_it_is_fresh(witness: Witness) -> None:
    try:
        sockets = witness.open()
    except OSError as err:
        pytest.fail(f"this test opens an ICMP socket: run it as root: {err}")
    try:
        assert witness.reach(time.monotonic()) is Reach.UNREACHABLE
        witness.ask()
        deadline = time.monotonic() + 5
        while witness.reach(now := time.monotonic()) is not Reach.REACHABLE:
            assert now < deadline, "no answer from loopback"
            select.select(sockets, [], [], deadline - now)
            witness.drain(time.monotonic())
        assert witness.reach(now + 1.5) is Reach.UNREACHABLE
    finally:
        witness.close()


def test_failing_address_beside_a_live_one_does_no_harm() -> None:
    # Sending to the first is refused by our own kernel.
    witness = Witness(("255.255.255.255", "127.0.0.1"), detect=1.0)
    sockets = witness.open()
    try:
        witness.ask()
        assert select.select(sockets, [], [], 5)[0]
        witness.drain(10.0)
        assert witness.reach(10.5) is Reach.REACHABLE
    finally:
        witness.close()
