# SPDX-License-Identifier: Apache-2.0
"""Replays: which authentic packets prove that the peer lives."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from haoperator.heartbeat.packet import NOBODY, Packet
from haoperator.heartbeat.session import Admission, Session

OWN, FIRST, SECOND = b"own-life", b"peers-#1", b"peers-#2"


def packet(
    sequence: int, incarnation: bytes = FIRST, echo: bytes = OWN, link: int = 0, sender: str = "b"
) -> Packet:
    return Packet(sender, incarnation, echo, sequence, link, b"")


def test_life_that_does_not_echo_ours_is_a_stranger() -> None:
    session = Session("b", OWN)
    assert session.admit(packet(1, echo=NOBODY), 0) is Admission.STRANGER
    assert session.admit(packet(1, echo=b"old life"), 0) is Admission.STRANGER
    assert session.peer_incarnation == NOBODY


def test_life_that_echoes_ours_is_accepted_and_echoed() -> None:
    session = Session("b", OWN)
    assert session.admit(packet(5), 0) is Admission.NEWEST
    assert session.peer_incarnation == FIRST
    # From here on the echo says nothing more: the peer may have heard a restart of ours late.
    assert session.admit(packet(6, echo=NOBODY), 0) is Admission.NEWEST


def test_packet_counts_once_a_link() -> None:
    session = Session("b", OWN)
    assert session.admit(packet(5, link=0), 0) is Admission.NEWEST
    assert session.admit(packet(5, link=1), 1) is Admission.COPY
    assert session.admit(packet(5, link=0), 0) is Admission.STALE
    assert session.admit(packet(5, link=1), 1) is Admission.STALE
    assert session.admit(packet(4, link=0), 0) is Admission.STALE


def test_slow_link_stays_proven_by_older_sequences() -> None:
    session = Session("b", OWN)
    assert session.admit(packet(9, link=0), 0) is Admission.NEWEST
    assert session.admit(packet(3, link=1), 1) is Admission.COPY
    assert session.admit(packet(4, link=1), 1) is Admission.COPY


def test_recording_of_one_link_proves_no_other() -> None:
    session = Session("b", OWN)
    assert session.admit(packet(5, link=0), 1) is Admission.FOREIGN


def test_our_own_packets_reflected_are_foreign() -> None:
    assert Session("b", OWN).admit(packet(5, sender="a"), 0) is Admission.FOREIGN


def test_replaced_life_never_comes_back() -> None:
    session = Session("b", OWN)
    session.admit(packet(5), 0)
    assert session.admit(packet(0, SECOND), 0) is Admission.NEWEST
    # Recorded while our present life was echoed already, never delivered:
    assert session.admit(packet(99), 0) is Admission.STALE
    assert session.peer_incarnation == SECOND


def test_recording_of_a_session_is_worth_nothing_after_both_have_restarted() -> None:
    before = [packet(number, echo=OWN) for number in range(5)]
    restarted = Session("b", b"new-life")
    for recorded in before:  # the peer has not been met yet: a stranger, answered, not believed
        assert restarted.admit(recorded, 0) is Admission.STRANGER
    assert restarted.admit(packet(0, SECOND, echo=b"new-life"), 0) is Admission.NEWEST
    for recorded in before:
        assert restarted.admit(recorded, 0) is Admission.STRANGER
    assert restarted.peer_incarnation == SECOND


@given(st.permutations(range(8)))
def test_reordered_packets_never_bring_an_older_status_back(order: list[int]) -> None:
    session = Session("b", OWN)
    newest = -1
    for sequence in order:
        fresh = sequence > newest
        assert (session.admit(packet(sequence), 0) is Admission.NEWEST) is fresh
        newest = max(newest, sequence)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 2)), max_size=60))
def test_replay_of_anything_delivered_proves_nothing(order: list[tuple[int, int]]) -> None:
    session = Session("b", OWN)
    for sequence, link in order:
        session.admit(packet(sequence, link=link), link)
    for sequence, link in order:
        assert session.admit(packet(sequence, link=link), link) is Admission.STALE


@given(st.lists(st.sampled_from(["to a", "to b", "lose"]), max_size=12))
def test_two_fresh_nodes_accept_each_other_after_any_loss(fates: list[str]) -> None:
    """The handshake of the module's docstring, as the daemon plays it."""
    lives = {"a": b"life-of-", "b": b"lebenvon"}
    sessions = {"a": Session("b", lives["a"]), "b": Session("a", lives["b"])}
    sequences = {"a": 0, "b": 0}
    queue: list[Packet] = []

    def send(sender: str, echo: bytes) -> None:
        sequences[sender] += 1
        queue.append(Packet(sender, lives[sender], echo, sequences[sender], 0, b""))

    def deliver() -> None:
        sent = queue.pop(0)
        receiver = "b" if sent.sender == "a" else "a"
        known = sessions[receiver].peer_incarnation
        match sessions[receiver].admit(sent, 0):
            case Admission.STRANGER:
                send(receiver, sent.incarnation)
            case Admission.NEWEST if known != sessions[receiver].peer_incarnation:
                send(receiver, sent.incarnation)

    for fate in fates:
        for node in "ab":
            send(node, sessions[node].peer_incarnation)
        if fate == "lose":
            queue.clear()
        queue[:] = [p for p in queue if fate == "lose" or p.sender != fate[-1]]
        steps = 0
        while queue:
            deliver()
            steps += 1
            assert steps < 20, "answers must not answer answers for ever"
    for node in "ab":
        send(node, sessions[node].peer_incarnation)
    while queue:
        deliver()
    assert sessions["a"].peer_incarnation == lives["b"]
    assert sessions["b"].peer_incarnation == lives["a"]
