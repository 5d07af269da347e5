# SPDX-License-Identifier: Apache-2.0
"""Decisions that no history shows, because both nodes or a later moment put them right.

Each was found by negating its guard (`tests.core.mutants`).
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from haoperator.core import effects as do
from haoperator.core import events as on
from haoperator.core.explain import explain
from haoperator.core.state import HANDOVER_SECONDS
from haoperator.core.status import Phase, Role, Status, Stream
from haoperator.core.verdict import winner
from tests.core.test_decisions import (
    DETECT,
    ME,
    OUTDATED,
    PEER,
    PRIMARYS,
    STANDBYS,
    Node,
    heard,
    loses_its_peer,
    marked_outdated,
    primary,
    standby,
)


def held(node: Node) -> Node:
    return node.on(on.ReplicaChanged(Role.PRIMARY, Stream.HELD, PRIMARYS, heard=node.now))


def test_departure_is_told_apart_from_life() -> None:
    node = primary()
    assert "alive" in explain(node.state).conclusion
    node.on(heard(Phase.LEAVING))
    assert "leaves" in explain(node.state).conclusion


def test_why_nothing_moves_names_what_is_still_heard_of_the_peer() -> None:
    node = standby().on(on.PeerFelt())
    assert "operator says nothing" in explain(node.state).rule
    node.on(on.PeerLost(), after=DETECT)
    assert "stream is alive" in explain(node.state).rule
    node.on(on.ReplicaChanged(Role.SECONDARY, Stream.LOST, STANDBYS, heard=node.now))
    assert "a moment ago" in explain(node.state).rule


@pytest.mark.parametrize("preferred", [ME, PEER])
def test_of_two_equal_standbys_the_preferred_one_wins(preferred: str) -> None:
    node = Node(preferred=preferred).on(
        on.ReplicaChanged(Role.SECONDARY, Stream.HANDED_OVER, STANDBYS)
    )
    beside = Status(PEER, Phase.WAITING, STANDBYS, promotable=True)
    assert winner(node.state, beside) == preferred


def test_primary_goes_on_at_once_when_its_standby_has_left() -> None:
    node = held(primary()).on(heard(Phase.LEAVING, Stream.DISCONNECTED, record=OUTDATED))
    assert [type(each) for each in node.wants()] == [do.ContinueAlone]


def test_primary_whose_standby_left_without_marking_itself_waits() -> None:
    node = held(primary()).on(heard(Phase.LEAVING, Stream.DISCONNECTED))
    assert node.wants() == []


def test_answer_of_a_standby_is_repeated_until_it_takes_the_role() -> None:
    asks = heard(Phase.PRIMARY, Stream.HELD, asks_outdate="2" * 16)
    node = standby().on(asks)
    assert node.wants() == [do.MarkOutdated()]
    node.on(on.ReplicaChanged(Role.SECONDARY, Stream.DISCONNECTED, OUTDATED), on.ReplicaDone())
    node.on(on.ReplicaDone())  # of another command
    assert node.state.published is not None
    assert node.state.published.outdated_for == "2" * 16
    assert node.on(asks).wants() == []


def test_answer_to_another_question_lets_no_primary_go_on() -> None:
    node = held(primary()).on(marked_outdated("f" * 16))
    assert node.wants() == []


def beside_an_equal_standby(**said: object) -> Node:
    """The peer wins by its name, if it can serve."""
    node = Node().on(on.ReplicaChanged(Role.SECONDARY, Stream.LOST, STANDBYS))
    node.on(heard(Phase.WAITING, Stream.HANDED_OVER, **said))
    node.wants()
    return node


def test_who_leaves_the_data_to_its_peer_marks_itself_outdated() -> None:
    assert beside_an_equal_standby().on(on.LeaveCommanded()).wants() == [do.MarkOutdated()]


def test_who_leaves_while_nobody_can_take_over_stays_up_to_date() -> None:
    assert beside_an_equal_standby(able=False).on(on.LeaveCommanded()).wants() == []


def test_who_leaves_marks_itself_once() -> None:
    node = standby()
    node.state = replace(node.state, record=OUTDATED)
    assert node.on(on.LeaveCommanded()).wants() == []


def test_arbiter_that_does_not_answer_is_named_as_the_reason() -> None:
    node = loses_its_peer(standby(arbiter=True))
    assert "is asked" in explain(node.state).rule
    assert "timed out" in explain(node.on(on.ArbiterFailed("timed out")).state).rule


def test_role_that_was_given_away_is_not_taken_back_until_the_peer_has_it() -> None:
    node = primary().on(on.SwapCommanded())
    assert node.state.yields
    node.on(heard(Phase.SECOND, promotable=True), heard(Phase.PROMOTING))
    assert node.state.yields
    assert not node.on(heard(Phase.PRIMARY)).state.yields


def test_what_a_peer_said_when_it_left_licenses_nothing_once_it_is_back() -> None:
    left = heard(Phase.LEAVING, Stream.DISCONNECTED, record=OUTDATED)
    node = primary().on(on.ReplicaChanged(Role.PRIMARY, Stream.ALONE, PRIMARYS), left)
    node.on(on.ReplicaChanged(Role.PRIMARY, Stream.SYNCED, PRIMARYS))
    node.wants()
    assert held(node).wants() == []


def test_what_a_living_peer_said_is_kept_when_the_stream_begins() -> None:
    node = primary()
    node.on(on.ReplicaChanged(Role.PRIMARY, Stream.RESYNC, PRIMARYS))
    assert node.state.peer_heard is not None


def test_what_a_peer_said_when_it_left_counts_while_no_stream_stands() -> None:
    left = heard(Phase.LEAVING, Stream.DISCONNECTED, record=OUTDATED)
    node = held(primary().on(left))
    assert node.state.peer_heard is not None


def test_gate_that_asks_on_a_primary_is_opened_at_once() -> None:
    assert primary().on(on.PromotionAsked()).wants() == [do.OpenGate()]


def test_gate_that_asks_where_the_role_is_not_decided_is_not_opened() -> None:
    """The replicator says primary, but this core has not decided that."""
    node = Node().on(on.ReplicaChanged(Role.PRIMARY, Stream.HELD, PRIMARYS))
    node.wants()
    assert do.OpenGate() not in node.on(on.PromotionAsked()).wants()


def test_isolate_to_primary_asks_the_primary_to_hand_over() -> None:
    assert standby().on(on.PromotionAsked()).wants() == []
    node = standby().on(on.PromotionAsked())
    assert node.state.phase is Phase.PROMOTING
    assert node.state.published is not None and node.state.published.asks_role


def test_isolate_to_primary_is_refused_on_a_node_that_leaves_or_steps_down() -> None:
    for node in (standby().on(on.LeaveCommanded()), primary().on(on.SwapCommanded())):
        node.wants()
        refusal, *_ = node.on(on.PromotionAsked()).wants()
        assert isinstance(refusal, do.RefuseGate)
        assert f"this node is {node.state.phase}" in refusal.reason


def test_promotion_ends_when_its_gate_is_stopped_and_not_before_it_asks() -> None:
    node = standby().on(on.SwapCommanded(), on.GateChanged(False))
    assert node.state.phase is Phase.PROMOTING
    node.on(on.PromotionAsked(), on.GateChanged(False))
    assert node.state.phase is not Phase.PROMOTING


def test_standby_that_leaves_its_primary_marks_itself_outdated() -> None:
    node = Node().on(on.ReplicaChanged(Role.SECONDARY, Stream.LOST, STANDBYS))
    node.on(heard(Phase.PRIMARY, Stream.HELD))
    node.wants()
    assert node.on(on.LeaveCommanded()).wants() == [do.MarkOutdated()]


def test_node_that_hears_nobody_leaves_without_marking_anything() -> None:
    node = Node().on(on.ReplicaChanged(Role.SECONDARY, Stream.LOST, STANDBYS))
    node.wants()
    assert node.on(on.LeaveCommanded()).wants() == []


def test_diverged_node_that_leaves_beside_a_primary_marks_nothing() -> None:
    other = replace(PRIMARYS, generation="3" * 16)
    node = Node().on(on.ReplicaChanged(Role.SECONDARY, Stream.DISCONNECTED, STANDBYS))
    node.on(heard(Phase.PRIMARY, Stream.ALONE, record=other))
    node.wants()
    assert node.on(on.LeaveCommanded()).wants() == []


@pytest.mark.parametrize("asking", [True, False])
def test_promotion_that_is_given_up_answers_the_gate_if_it_asks(asking: bool) -> None:
    node = standby().on(on.SwapCommanded())
    if asking:
        node.on(on.PromotionAsked())
    node.wants()
    wanted = node.on(on.TimePassed(), after=HANDOVER_SECONDS + 1).wants()
    assert type(wanted[0]) is (do.RefuseGate if asking else do.StartSecondary)


def test_node_that_leaves_makes_its_data_read_only_when_the_gate_is_closed() -> None:
    node = primary().on(on.LeaveCommanded())
    assert node.wants() == []
    assert node.on(on.GateChanged(False)).wants() == [do.BecomeSecondary()]


def test_standby_that_leaves_a_primary_whose_replicator_restarts_marks_itself_outdated() -> None:
    node = Node().on(on.ReplicaChanged(Role.SECONDARY, Stream.LOST, STANDBYS))
    node.on(heard(Phase.PRIMARY, Stream.DISCONNECTED, able=False))
    node.wants()
    assert node.on(on.LeaveCommanded()).wants() == [do.MarkOutdated()]
