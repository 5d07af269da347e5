# SPDX-License-Identifier: Apache-2.0
"""Two versions of the program agree on what both speak, or say why they cannot."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace

import pytest

from haoperator.replica import handshake
from haoperator.replica.handshake import Agreement, HandshakeError, LinkFailed, Meeting, Spoken
from tests.replica.node_process import settings_from
from tests.replica.pair import Pair

Outcome = Meeting | HandshakeError


def meet(pair: Pair, primary: Spoken, standby: Spoken) -> tuple[Outcome, Outcome]:
    """What became of it on the primary, and on the standby, which answers `heard`."""
    ours, theirs = socket.socketpair()
    found: list[Outcome] = []

    def serve() -> None:
        try:
            meeting = handshake.as_standby(theirs, settings_from(pair.b.settings), standby)
            handshake.answer(meeting.channel, {"heard": meeting.asked})
            found.append(meeting)
        except HandshakeError as err:
            found.append(err)

    thread = threading.Thread(target=serve)
    thread.start()
    outcome: Outcome
    try:
        outcome = handshake.as_primary(
            ours, settings_from(pair.a.settings), lambda: {"said": "x"}, primary
        )
    except HandshakeError as err:
        outcome = err
    thread.join()
    return outcome, found[0]


@pytest.mark.parametrize(
    ("primary", "standby", "agreed"),
    [
        (Spoken(1, 1, 0), Spoken(1, 1, 0), Agreement(1, 0)),
        (Spoken(1, 3, 0b0110), Spoken(2, 5, 0b1100), Agreement(3, 0b0100)),
        (Spoken(2, 7, 0b1), Spoken(1, 2, 0b1), Agreement(2, 0b1)),
        (Spoken(1, 1, 0b1), Spoken(1, 2, 0b10), Agreement(1, 0)),
    ],
)
def test_highest_common_version_and_common_features_are_used(
    pair: Pair, primary: Spoken, standby: Spoken, agreed: Agreement
) -> None:
    one, other = meet(pair, primary, standby)
    assert isinstance(one, Meeting), one
    assert isinstance(other, Meeting), other
    assert one.agreement == other.agreement == agreed
    assert one.asked == other.asked == {"said": "x"}
    assert one.answer == {"heard": {"said": "x"}}


def test_nodes_without_a_common_version_both_say_what_is_spoken(pair: Pair) -> None:
    one, other = meet(pair, Spoken(3, 4, 0), Spoken(1, 2, 0))
    for refusal in (one, other):
        assert isinstance(refusal, HandshakeError)
        assert not isinstance(refusal, LinkFailed)
        assert str(refusal) == ("no protocol version in common: b speaks 1 to 2, a 3 to 4")


def test_link_that_ends_in_the_middle_is_the_links_failure(pair: Pair) -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with pytest.raises(LinkFailed, match=r"reset|pipe"):
        handshake.as_primary(ours, settings_from(pair.a.settings), dict)


def test_other_key_is_not_the_links_failure(pair: Pair) -> None:
    ours, theirs = socket.socketpair()
    wrong = replace(settings_from(pair.b.settings), key=b"k" * 32)

    def serve() -> None:
        with pytest.raises(HandshakeError, match=r"cluster\.key"):
            handshake.as_standby(theirs, wrong)

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(HandshakeError, match=r"does not hold our cluster\.key") as caught:
        handshake.as_primary(ours, settings_from(pair.a.settings), dict)
    thread.join()
    assert not isinstance(caught.value, LinkFailed)


def test_answer_to_what_is_not_true_any_more_begins_no_stream(synced: Pair) -> None:
    """The primary goes on alone while it waits for the standby's answer."""
    synced.b.power_cut()
    synced.a.wait_stream("held")
    with socket.create_server(("127.0.77.2", synced.port)) as listening:
        meeting: Meeting | None = None
        while meeting is None or meeting.asked.get("knock"):
            sock, _ = listening.accept()
            meeting = handshake.as_standby(sock, settings_from(synced.b.settings))
        generation = "0123456789abcdef"
        synced.a.call("continue_alone", generation=generation)
        handshake.answer(meeting.channel, {"accept": "synced"})
        with pytest.raises(OSError, match=r"reset|pipe"):
            meeting.channel.receive(1, 10_000)
    assert synced.a.stream == "alone"
    assert synced.a.record["generation"] == generation
    assert synced.a.record["peer_outdated"]
