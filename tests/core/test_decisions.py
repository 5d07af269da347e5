# SPDX-License-Identifier: Apache-2.0
"""Single decisions of the core, each from the evidence that it rests on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from haoperator.core import effects as do
from haoperator.core import events as on
from haoperator.core.explain import explain
from haoperator.core.record import DataRecord
from haoperator.core.state import (
    HELD_PATIENCE_SECONDS,
    SWAP_BACK_SECONDS,
    Policy,
    Shown,
    State,
    shown,
)
from haoperator.core.status import Maintenance, Phase, Role, Status, Stream
from haoperator.core.step import step

ME, PEER = "node-b", "node-a"
DETECT = 2.0
GENERATION = "1" * 16
PRIMARYS = DataRecord(GENERATION, up_to_date=True, last_primary=True)
STANDBYS = replace(PRIMARYS, last_primary=False)
OUTDATED = replace(STANDBYS, up_to_date=False)


class Node:
    """One core, its clock, and what it wanted since it was last asked."""

    def __init__(self, **policy: object) -> None:
        self.state = State(Policy(ME, PEER, detect=DETECT, **policy), seed="s")  # type: ignore[arg-type]
        self.now = 100.0
        self.wanted: list[do.Effect] = []

    def on(self, *events: on.Event, after: float = 0.0) -> Node:
        self.now += after
        for event in events:
            self.state, effects = step(self.state, event, self.now)
            self.wanted += [each for each in effects if not isinstance(each, do.Publish)]
        return self

    def wants(self) -> list[do.Effect]:
        """What it wanted since this was last called."""
        wanted, self.wanted = self.wanted, []
        return wanted

    @property
    def shows(self) -> Shown:
        return shown(self.state)[0]


def heard(phase: Phase, stream: Stream = Stream.SYNCED, **said: object) -> on.PeerHeard:
    said.setdefault("record", PRIMARYS if phase is Phase.PRIMARY else STANDBYS)
    return on.PeerHeard(Status(PEER, phase, stream=stream, **said))  # type: ignore[arg-type]


def marked_outdated(generation: str) -> on.PeerHeard:
    """The answer of a standby to a primary that is about to begin `generation`."""
    return heard(Phase.WAITING, Stream.DISCONNECTED, record=OUTDATED, outdated_for=generation)


def standby(**policy: object) -> Node:
    node = Node(**policy).on(
        on.ReplicaChanged(Role.SECONDARY, Stream.SYNCED, STANDBYS), heard(Phase.PRIMARY)
    )
    assert node.shows is Shown.SECOND
    if policy.get("arbiter"):
        assert node.wants() == [do.Disclaim(GENERATION)]
        node.on(on.HeirTold(GENERATION, ""))
    assert node.wants() == []
    return node


def primary(**policy: object) -> Node:
    node = Node(**policy).on(
        on.GateChanged(True),
        on.ReplicaChanged(Role.PRIMARY, Stream.SYNCED, PRIMARYS),
        heard(Phase.SECOND, promotable=True),
    )
    assert node.shows is Shown.PRIM
    if policy.get("arbiter"):
        assert node.wants() == [do.Disclaim(GENERATION)]
        node.on(on.HeirTold(GENERATION, ""))
    assert node.wants() == []
    return node


def loses_its_peer(node: Node) -> Node:
    role = node.state.role
    assert role is not None
    lost = Stream.HELD if role is Role.PRIMARY else Stream.LOST
    changed = on.ReplicaChanged(role, lost, node.state.record, heard=node.now)
    return node.on(changed).on(on.PeerLost(), after=DETECT)


def test_standby_takes_over_when_the_peer_is_silent_and_a_witness_answers() -> None:
    node = loses_its_peer(standby().on(on.WitnessChanged(on.Witness.REACHABLE)))
    assert node.wants() == [do.StartPrimary()]


def test_standby_that_reaches_nobody_marks_itself_outdated_and_waits() -> None:
    node = loses_its_peer(standby().on(on.WitnessChanged(on.Witness.UNREACHABLE)))
    assert node.wants() == [do.MarkOutdated()]
    assert "isolated" in explain(node.state).conclusion


def test_virtual_ip_that_answers_keeps_the_standby_from_taking_over() -> None:
    node = standby().on(on.WitnessChanged(on.Witness.REACHABLE), on.VipProbed(on.Probe.ANSWERED))
    loses_its_peer(node)
    assert node.wants() == [do.MarkOutdated()]
    outdated = replace(STANDBYS, up_to_date=False)
    node.on(on.ReplicaChanged(Role.SECONDARY, Stream.DISCONNECTED, outdated), on.ReplicaDone())
    assert node.shows is Shown.WAIT
    # Its primary dies later: what it wrote alone must not be lost.
    node.on(on.VipProbed(on.Probe.UNANSWERED), after=60)
    assert node.wants() == []
    assert node.shows is Shown.WAIT


def test_virtual_ip_that_answers_does_not_hinder_the_primary() -> None:
    node = loses_its_peer(primary().on(on.WitnessChanged(on.Witness.REACHABLE)))
    assert [type(each) for each in node.wants()] == [do.ContinueAlone]


def test_heir_takes_over() -> None:
    node = loses_its_peer(standby(arbiter=True))
    assert node.wants() == [do.Claim(GENERATION)]
    assert node.on(on.TimePassed(), after=0.1).wants() == []
    assert node.on(on.HeirTold(GENERATION, ME)).wants() == [do.StartPrimary()]


def test_who_is_not_the_heir_does_not_take_over() -> None:
    node = loses_its_peer(standby(arbiter=True))
    assert node.wants() == [do.Claim(GENERATION)]
    assert node.on(on.HeirTold(GENERATION, PEER)).wants() == []
    assert node.on(on.TimePassed(), after=60).wants() == []
    assert node.shows is Shown.SECOND or node.shows is Shown.WAIT
    assert "arbiter" in explain(node.state).rule


def test_arbiter_that_does_not_answer_is_asked_again_and_nobody_takes_over_meanwhile() -> None:
    node = loses_its_peer(standby(arbiter=True))
    assert node.wants() == [do.Claim(GENERATION)]
    assert node.on(on.ArbiterFailed("timed out")).wants() == []
    assert "timed out" in dict(explain(node.state).evidence)["arbiter"]
    assert node.on(on.TimePassed(), after=0.5).wants() == []
    assert node.on(on.TimePassed(), after=0.6).wants() == [do.Claim(GENERATION)]


def test_witness_is_of_no_matter_beside_an_arbiter() -> None:
    unreachable = on.WitnessChanged(on.Witness.UNREACHABLE)
    node = loses_its_peer(standby(arbiter=True).on(unreachable))
    assert node.wants() == [do.Claim(GENERATION)]


def test_primary_goes_on_alone_as_the_heir() -> None:
    node = loses_its_peer(primary(arbiter=True))
    assert node.wants() == [do.Claim(GENERATION)]
    node.on(on.HeirTold(GENERATION, ME))
    assert [type(each) for each in node.wants()] == [do.ContinueAlone]


@pytest.mark.parametrize("answer", [on.HeirTold(GENERATION, PEER), on.ArbiterFailed("no route")])
def test_primary_that_is_not_known_to_be_the_heir_stops(answer: on.Event) -> None:
    node = loses_its_peer(primary(arbiter=True))
    assert node.wants() == [do.Claim(GENERATION)]
    assert node.on(answer).wants() == [do.StartSecondary(), do.BecomeSecondary()]


def test_isolated_primary_lets_go_of_what_waits_to_write_while_its_applications_stop() -> None:
    node = loses_its_peer(primary().on(on.WitnessChanged(on.Witness.UNREACHABLE)))
    assert node.wants() == [do.StartSecondary(), do.BecomeSecondary()]
    behind = on.ReplicaChanged(Role.SECONDARY, Stream.DISCONNECTED, PRIMARYS)
    assert node.on(behind, on.ReplicaDone()).wants() == []
    assert node.state.phase is Phase.DEMOTING
    node.on(on.GateChanged(False))
    assert node.shows is Shown.WAIT


def test_primary_that_was_stopped_and_is_overtaken_lets_go_of_what_waits_to_write() -> None:
    """All of its processes stood still for a while; the peer took over meanwhile."""
    newer = PRIMARYS.begin("2" * 16)
    node = primary().on(on.ReplicaChanged(Role.PRIMARY, Stream.HELD, PRIMARYS))
    node.on(heard(Phase.PRIMARY, Stream.ALONE, record=newer))
    assert node.wants() == [do.StartSecondary(), do.BecomeSecondary()]
    assert node.state.phase is Phase.DEMOTING


def test_standby_that_hears_its_primary_write_alone_marks_itself_outdated() -> None:
    """Cut in one direction only: the primary hears nobody and went on; its own heartbeats come.
    When it dies later, the copy here must not pass for complete."""
    node = standby().on(on.WitnessChanged(on.Witness.REACHABLE))
    node.on(on.ReplicaChanged(Role.SECONDARY, Stream.LOST, STANDBYS, heard=node.now))
    node.on(heard(Phase.PRIMARY, Stream.ALONE, record=PRIMARYS.begin("2" * 16)))
    assert node.wants() == [do.MarkOutdated()]
    node.on(on.ReplicaChanged(Role.SECONDARY, Stream.DISCONNECTED, OUTDATED), on.ReplicaDone())
    assert node.shows is Shown.WAIT
    assert loses_its_peer(node).wants() == []


def test_primary_whose_peer_marked_itself_outdated_needs_no_arbiter() -> None:
    node = primary(arbiter=True)
    node.on(on.ReplicaChanged(Role.PRIMARY, Stream.HELD, PRIMARYS, heard=node.now))
    answer = marked_outdated(node.state.next_generation)
    assert [type(each) for each in node.on(answer).wants()] == [do.ContinueAlone]


def test_answer_of_an_outdated_standby_is_good_for_one_loss_of_the_stream() -> None:
    """What the standby is asked while a generation is being begun would answer the next loss
    before it happens, and the primary would go on beside a standby that may take over."""
    node = primary()
    asked = []
    for _ in range(2):
        held = on.ReplicaChanged(Role.PRIMARY, Stream.HELD, PRIMARYS, heard=node.now)
        node.on(held).on(on.TimePassed(), after=2 * HELD_PATIENCE_SECONDS)
        assert node.wants() == [], "the standby has not answered yet"
        assert node.state.published
        asked.append(node.state.published.asks_outdate)
        node.on(marked_outdated(asked[-1]))
        assert node.wants() == [do.ContinueAlone(asked[-1])]
        assert node.state.published.asks_outdate == ""
        node.on(on.ReplicaChanged(Role.PRIMARY, Stream.ALONE, PRIMARYS), on.ReplicaDone())
        in_step = on.ReplicaChanged(Role.PRIMARY, Stream.SYNCED, PRIMARYS)
        node.on(in_step, heard(Phase.SECOND, outdated_for=asked[-1], promotable=True))
    assert asked[0] != asked[1]


def test_claim_is_given_back_when_both_are_in_step_again() -> None:
    node = loses_its_peer(standby(arbiter=True))
    assert node.wants() == [do.Claim(GENERATION)]
    # The stream stands again before the answer comes: the answer is not believed any more.
    node.on(heard(Phase.PRIMARY), on.ReplicaChanged(Role.SECONDARY, Stream.SYNCED, STANDBYS))
    node.on(on.HeirTold(GENERATION, ME))
    assert node.wants() == [do.Disclaim(GENERATION)]
    assert node.on(on.HeirTold(GENERATION, "")).wants() == []
    loses_its_peer(node)
    assert node.wants() == [do.Claim(GENERATION)]


def test_nobody_takes_over_in_maintenance() -> None:
    node = standby().on(on.MaintenanceCommanded(True))
    assert node.wants() == [do.Accept(), do.KeepMaintenance(Maintenance(1, True))]
    assert loses_its_peer(node).wants() == []
    node.on(on.MaintenanceCommanded(False))
    assert do.StartPrimary() in node.wants()


def test_maintenance_holds_on_both_nodes_and_the_last_command_wins() -> None:
    node = standby().on(heard(Phase.PRIMARY, maintenance=Maintenance(3, True)))
    assert node.wants() == [do.KeepMaintenance(Maintenance(3, True))]
    node.on(on.MaintenanceCommanded(False), heard(Phase.PRIMARY, maintenance=Maintenance(3, True)))
    assert node.wants() == [do.Accept(), do.KeepMaintenance(Maintenance(4, False))]
    assert node.state.published is not None
    assert node.state.published.maintenance == Maintenance(4, False)


def test_isolated_primary_keeps_the_role_in_maintenance_and_acknowledges_nothing() -> None:
    node = primary().on(on.MaintenanceCommanded(True), on.WitnessChanged(on.Witness.UNREACHABLE))
    node.wants()
    assert loses_its_peer(node).wants() == []


def comes_back(node: Node) -> Node:
    behind = replace(STANDBYS, up_to_date=False, consistent=False)
    return node.on(
        on.ReplicaChanged(Role.SECONDARY, Stream.RESYNC, behind),
        heard(Phase.PRIMARY, Stream.RESYNC),
        on.ReplicaChanged(Role.SECONDARY, Stream.SYNCED, STANDBYS),
        heard(Phase.PRIMARY),
    )


def test_preferred_node_takes_its_role_back_when_it_has_stayed_in_step() -> None:
    node = comes_back(Node(preferred=ME))
    assert node.on(on.TimePassed(), after=SWAP_BACK_SECONDS - 1).wants() == []
    assert node.on(on.TimePassed(), after=1).wants() == [do.StartPrimary()]
    assert node.state.phase is Phase.PROMOTING


@pytest.mark.parametrize("joins", [True, False])
def test_preferred_node_whose_replicator_was_quicker_than_its_operator_has_come_back(
    joins: bool,
) -> None:
    """An operator that is only restarted finds the same, and moves nothing."""
    node = Node(preferred=ME)
    node.state = replace(node.state, joins=joins)
    node.on(on.ReplicaChanged(Role.SECONDARY, Stream.SYNCED, STANDBYS), heard(Phase.PRIMARY))
    node.on(on.TimePassed(), after=SWAP_BACK_SECONDS)
    assert node.wants() == ([do.StartPrimary()] if joins else [])


@pytest.mark.parametrize("policy", [{"preferred": PEER}, {}, {"preferred": ME, "automatic": False}])
def test_nobody_else_swaps_by_itself(policy: dict[str, object]) -> None:
    node = comes_back(Node(**policy))
    assert node.on(on.TimePassed(), after=10 * SWAP_BACK_SECONDS).wants() == []


def test_swap_by_hand_away_from_the_preferred_node_is_respected() -> None:
    node = primary(preferred=ME).on(on.SwapCommanded())
    assert node.wants() == [do.Accept(), do.StartSecondary()]
    node.on(
        on.GateChanged(False),
        on.ReplicaChanged(Role.SECONDARY, Stream.HANDED_OVER, STANDBYS),
        on.ReplicaDone(),
        heard(Phase.PRIMARY),
        on.ReplicaChanged(Role.SECONDARY, Stream.SYNCED, STANDBYS),
    )
    assert node.shows is Shown.SECOND
    assert node.wants() == [do.BecomeSecondary()]
    assert node.on(on.TimePassed(), after=10 * SWAP_BACK_SECONDS).wants() == []


def test_application_that_fails_on_both_nodes_does_not_move_back_and_forth() -> None:
    node = primary(restart_window=3600.0).on(on.AppGaveUp("ha-app@web.service"))
    assert node.wants() == [do.StartSecondary()]
    node.on(
        on.GateChanged(False),
        on.ReplicaChanged(Role.SECONDARY, Stream.HANDED_OVER, STANDBYS),
        on.ReplicaDone(),
        heard(Phase.PRIMARY),
        on.ReplicaChanged(Role.SECONDARY, Stream.SYNCED, STANDBYS),
    )
    assert node.state.published is not None and not node.state.published.healthy
    node.on(on.TimePassed(), after=3600)
    assert node.state.published.healthy


def test_primary_keeps_trying_when_the_peer_is_no_better() -> None:
    node = primary().on(heard(Phase.SECOND, promotable=True, healthy=False))
    assert node.on(on.AppGaveUp("ha-app@web.service")).wants() == [
        do.RestartApp("ha-app@web.service")
    ]
    # By hand it still can be moved.
    assert node.on(on.SwapCommanded()).wants() == [do.Accept(), do.StartSecondary()]


def test_standby_that_is_not_ready_says_so_and_takes_over_all_the_same_from_a_dead_primary() -> (
    None
):
    node = standby().on(on.ReadinessChanged("checker disk failed"))
    assert node.state.published is not None and not node.state.published.healthy
    assert node.shows is Shown.SECOND
    assert "disk" in dict(explain(node.state).evidence)["readiness"]
    assert loses_its_peer(node).wants() == [do.StartPrimary()]
    node.on(on.ReadinessChanged(""))
    assert node.state.published.healthy


def test_preferred_node_that_is_not_ready_does_not_take_its_role_back() -> None:
    node = comes_back(Node(preferred=ME)).on(on.ReadinessChanged("checker disk failed"))
    assert node.on(on.TimePassed(), after=10 * SWAP_BACK_SECONDS).wants() == []
    assert node.on(on.ReadinessChanged("")).wants() == [do.StartPrimary()]


def test_replicator_that_came_back_a_moment_ago_has_not_heard_a_silence_yet() -> None:
    """While it was away, nobody here could hear the peer's."""
    node = primary().on(on.WitnessChanged(on.Witness.REACHABLE), on.ReplicaGone())
    node.on(on.PeerLost(), after=DETECT)
    back = on.ReplicaChanged(Role.PRIMARY, Stream.HELD, PRIMARYS)
    assert node.on(back, on.TimePassed()).wants() == []
    assert [type(each) for each in node.on(on.TimePassed(), after=DETECT).wants()] == [
        do.ContinueAlone
    ]


def test_standby_that_gives_way_unheard_answers_what_its_primary_would_have_asked() -> None:
    """Cut from the primary to the standby only: the primary hears it, and need not wait."""
    ahead = primary().on(on.WitnessChanged(on.Witness.REACHABLE))
    assert ahead.state.published is not None
    told = ahead.state.published.would_begin
    assert told
    behind = standby().on(on.PeerHeard(replace(ahead.state.published, node=PEER)))
    behind.on(on.WitnessChanged(on.Witness.UNREACHABLE))
    assert loses_its_peer(behind).wants() == [do.MarkOutdated()]
    outdated = replace(STANDBYS, up_to_date=False)
    behind.on(on.ReplicaChanged(Role.SECONDARY, Stream.DISCONNECTED, outdated), on.ReplicaDone())
    answer = behind.state.published
    assert answer is not None and answer.outdated_for == told

    ahead.on(on.ReplicaChanged(Role.PRIMARY, Stream.HELD, PRIMARYS, heard=ahead.now))
    assert ahead.on(on.PeerHeard(replace(answer, node=PEER))).wants() == [do.ContinueAlone(told)]


def test_answer_from_before_is_none_once_both_were_in_step_again() -> None:
    node = primary()
    assert node.state.published is not None
    told = node.state.published.would_begin
    node.on(on.ReplicaChanged(Role.PRIMARY, Stream.HELD, PRIMARYS, heard=node.now))
    node.on(on.ReplicaChanged(Role.PRIMARY, Stream.SYNCED, PRIMARYS))
    assert node.state.published.would_begin not in ("", told)
    node.on(on.ReplicaChanged(Role.PRIMARY, Stream.HELD, PRIMARYS, heard=node.now))
    node.wants()
    stale = heard(Phase.WAITING, Stream.DISCONNECTED, outdated_for=told)
    record = replace(stale.status.record, up_to_date=False)
    assert node.on(on.PeerHeard(replace(stale.status, record=record))).wants() == []


def test_primary_that_hands_over_while_it_is_taken_for_dead_is_not_dead() -> None:
    """Isolated, it gave up; the network is mended, and it hands over, in the very moment in
    which its standby takes over."""
    node = loses_its_peer(standby().on(on.WitnessChanged(on.Witness.REACHABLE)))
    assert node.wants() == [do.StartPrimary()]
    long_ago = node.state.replica.heard if node.state.replica else 0.0
    for stream in (Stream.RESYNC, Stream.SYNCED, Stream.HANDED_OVER):
        node.on(on.ReplicaChanged(Role.SECONDARY, stream, STANDBYS, heard=long_ago))
    node.on(on.PromotionAsked())
    assert [type(each) for each in node.wants()] == [do.RefuseGate]


def test_answer_from_before_is_none_when_a_resync_broke_at_its_very_end() -> None:
    """The standby may be complete, and the primary does not know."""
    node = primary()
    assert node.state.published is not None
    told = node.state.published.would_begin
    record = replace(PRIMARYS, up_to_date=False)
    outdated = Status(PEER, Phase.WAITING, record, Stream.DISCONNECTED, outdated_for=told)
    for stream in (Stream.HELD, Stream.RESYNC, Stream.HELD):
        node.on(on.ReplicaChanged(Role.PRIMARY, stream, PRIMARYS, heard=node.now))
    assert node.on(on.PeerHeard(outdated)).wants() == []


def test_promotion_is_refused_while_data_comes_from_a_primary_even_before_it_is_heard() -> None:
    node = Node().on(
        on.ReplicaChanged(Role.SECONDARY, Stream.RESYNC, DataRecord(consistent=False)),
        on.PeerHeard(Status(PEER, Phase.WAITING)),
    )
    for force in (False, True):
        (answer,) = node.on(on.PromoteCommanded(force)).wants()
        assert isinstance(answer, do.Refuse)
        assert "swap" in answer.reason


def test_data_that_systemd_makes_read_only_is_the_peers_to_take() -> None:
    """`systemctl isolate ha-secondary.target` on the primary; the replicator tells it first."""
    node = primary()
    node.on(on.ReplicaChanged(Role.SECONDARY, Stream.LOST, STANDBYS))
    node.on(on.GateChanged(False), heard(Phase.SECOND, promotable=True, defers=True))
    assert do.StartPrimary() not in node.wants()
    assert node.state.published is not None and node.state.published.yields


def test_promotion_is_given_up_by_who_finds_itself_isolated() -> None:
    """Its primary goes on alone meanwhile, whatever this node was about to do."""
    node = comes_back(Node(preferred=ME))
    assert node.on(on.TimePassed(), after=SWAP_BACK_SECONDS).wants() == [do.StartPrimary()]
    loses_its_peer(node.on(on.WitnessChanged(on.Witness.UNREACHABLE)))
    assert node.wants() == [do.StartSecondary(), do.MarkOutdated()]


def test_what_the_peer_said_before_it_was_in_step_is_not_agreement() -> None:
    handed_over = replace(STANDBYS, history=("0" * 16,))
    older = DataRecord("0" * 16)
    node = Node().on(
        on.ReplicaChanged(Role.SECONDARY, Stream.LOST, handed_over),
        on.PeerHeard(Status(PEER, Phase.WAITING, older, defers=True)),
    )
    assert node.wants() == []
    assert "how its data stands" in node.state.reason


def test_node_that_leaves_agrees_to_nothing_while_its_data_is_writable() -> None:
    node = primary().on(on.LeaveCommanded())
    assert node.state.published is not None
    assert not node.state.published.defers
    node.on(
        on.GateChanged(False),
        on.ReplicaChanged(Role.SECONDARY, Stream.LOST, STANDBYS),
        on.ReplicaDone(),
    )
    assert node.state.published.defers
