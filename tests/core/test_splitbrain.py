# SPDX-License-Identifier: Apache-2.0
"""Split brain in the shipped core: seen by both, ended by a choice, nothing of it overwritten."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from haoperator.core import effects as do
from haoperator.core import events as on
from haoperator.core.generation import Relation, compare
from haoperator.core.record import DataRecord
from haoperator.core.splitbrain import former_primary, split_brain_text, undecided
from haoperator.core.state import Contact, Policy, Shown, State, shown
from haoperator.core.status import Role, Status
from haoperator.core.step import status_of, step
from tests.core.moves import COMMANDS, FAULTS, FORCE, RECOVERIES, USUAL
from tests.core.world import NAMES, World, started_pair

WALKS = 60
MOVES = 120
A, B = NAMES


class DividedWorld(World):
    """Without a witness, and with all paths cut: two primaries may be. What was acknowledged is
    in one of the copies all the same, or kept aside."""

    def __init__(self, preferred: str | None = None, *, former_primary_wins: bool = False) -> None:
        super().__init__(preferred, former_primary_wins=former_primary_wins, assumed=False)

    def check(self) -> None:
        there = frozenset[int]().union(*(n.writes | n.kept for n in self.nodes.values()))
        lost = self.acknowledged - there
        assert not lost, self.tell_story(f"{sorted(lost)} were overwritten and not kept")

    def divide(self) -> None:
        """All paths are cut for longer than `detect`, then healed; each writes if it can."""
        self.heartbeat_cut = True
        self.cut_stream()
        for _ in range(12):
            for node in self.nodes.values():
                for move in (self.run_job, self.run_command, self.pass_time, self.write):
                    move(node)
                    self.check()

    def core(self, name: str) -> State:
        core = self.nodes[name].core
        assert core is not None
        return core

    @property
    def split(self) -> bool:
        """Both are up and see that they have diverged."""
        cores = [self.core(name) for name in NAMES]
        heard = [core.peer_heard for core in cores]
        return all(
            peer is not None and undecided(core, peer)
            for core, peer in zip(cores, heard, strict=True)
        )


def diverged_pair(*, by_policy: bool = False, preferred: str | None = None) -> DividedWorld:
    """B was the standby of A, and took over while A went on."""
    world = DividedWorld(preferred, former_primary_wins=by_policy)
    started_pair(world)
    world.divide()
    assert {n.role for n in world.nodes.values()} == {Role.PRIMARY}
    return world


def test_diverged_primaries_stop_to_one_and_both_say_what_to_do() -> None:
    world = diverged_pair()
    assert not world.calm()
    assert world.split
    assert shown(world.core(A))[0] is Shown.ALONE
    assert shown(world.core(B))[0] is Shown.WAIT
    assert "hactl splitbrain yield" in world.core(B).reason
    assert not any(node.kept for node in world.nodes.values())


@pytest.mark.parametrize("loser", NAMES)
def test_yield_on_either_node_ends_it_and_keeps_what_lost(loser: str) -> None:
    world = diverged_pair()
    world.calm()
    node, other = world.nodes[loser], world.peer(world.nodes[loser])
    only_here = node.writes - other.writes
    assert only_here
    world.tell(node, on.YieldCommanded())
    assert world.calm(), world.tell_story("does not settle after the choice")
    assert shown(world.core(other.name))[0] is Shown.PRIM
    assert only_here <= node.kept
    assert not only_here & node.writes


def test_former_primary_wins_by_policy_whoever_is_preferred() -> None:
    for preferred in (None, *NAMES):
        world = diverged_pair(by_policy=True, preferred=preferred)
        assert world.calm(), world.tell_story("does not settle by itself")
        assert shown(world.core(A))[0] is Shown.PRIM, world.tell_story(f"preferred: {preferred}")
        assert world.nodes[B].kept - world.nodes[A].writes


def test_policy_that_cannot_tell_waits_for_an_administrator() -> None:
    """Both were promoted by force from nothing: there was no primary before."""
    world = DividedWorld(former_primary_wins=True)
    world.heartbeat_cut = world.stream_cut = True
    for node in world.nodes.values():
        world.boot(node)
        world.tell(node, on.PromoteCommanded(force=True))
    world.divide()
    assert not world.calm()
    assert world.split
    world.tell(world.nodes[A], on.YieldCommanded())
    assert world.calm(), world.tell_story("does not settle after the choice")


def test_yield_is_refused_without_a_split_brain_or_without_the_peer() -> None:
    together, divided = DividedWorld(), diverged_pair()
    started_pair(together)
    for world, why in ((together, "there is no split brain"), (divided, "is not heard")):
        for name in NAMES:
            _, effects = step(world.core(name), on.YieldCommanded(), world.now)
            refused = [each.reason for each in effects if isinstance(each, do.Refuse)]
            assert refused and why in refused[0]


def test_both_nodes_that_yield_overwrite_nothing_until_one_is_promoted() -> None:
    world = diverged_pair()
    world.calm()
    yielded = {name: world.core(name).record.generation for name in NAMES}
    for name, other in (NAMES, NAMES[::-1]):
        node = world.nodes[name]
        node.record = replace(node.record, up_to_date=False, yielded_to=yielded[other])
    for name in NAMES:
        world.crash(world.nodes[name])
    assert not world.calm()
    assert not any(node.kept for node in world.nodes.values())
    world.tell(world.nodes[B], on.PromoteCommanded(force=True))
    assert world.calm(), world.tell_story("force does not end it")
    assert shown(world.core(B))[0] is Shown.PRIM


def troubled(chance: random.Random, *, by_policy: bool) -> DividedWorld:
    """A pair after faults, force and yields at random."""
    world = DividedWorld(chance.choice((None, *NAMES)), former_primary_wins=by_policy)
    started_pair(world)
    often, seldom = USUAL * 6 + RECOVERIES * 2, FAULTS + COMMANDS + FORCE * 4
    for number in range(MOVES):
        if number % 30 == 0 and chance.random() < 0.7:
            world.divide()
        move = chance.choice(seldom if chance.random() < 0.2 else often)
        after = world.copy()
        if move.on(after):
            world = after
        if chance.random() < 0.3:
            world.write(world.nodes[chance.choice(NAMES)])
        world.check()
    return world


@pytest.mark.parametrize("block", range(4))
def test_random_faults_and_yields_overwrite_nothing_that_is_not_kept(block: int) -> None:
    splits = 0
    for seed in range(block * WALKS, (block + 1) * WALKS):
        chance = random.Random(seed)
        by_policy = chance.random() < 0.5
        try:
            world = troubled(chance, by_policy=by_policy)
            if world.calm():
                continue
            splits += 1
            assert world.split, world.tell_story("comes to rest neither together nor divided")
            told = former_primary(world.core(A), status_of(world.core(B)))
            both = all(n.record.yielded_to for n in world.nodes.values())
            assert not by_policy or not told or both, world.tell_story("the policy could tell")
            world.tell(world.nodes[chance.choice(NAMES)], on.YieldCommanded())
            if not world.calm():
                world.tell(world.nodes[chance.choice(NAMES)], on.PromoteCommanded(force=True))
                assert world.calm(), world.tell_story("does not settle after the choice")
        except AssertionError as err:
            raise AssertionError(f"seed {seed}: {err}") from err
    assert splits > WALKS // 20, "hardly any of these lives came to a split brain"


def record_of(*begun: tuple[str, str]) -> DataRecord:
    """Generations with the node that began each; the record is that of the last one's."""
    records = {A: DataRecord(), B: DataRecord()}
    last = ""
    for node, generation in begun:
        if last and node != last:
            records[node] = replace(records[last], last_primary=False)
        records[node] = records[node].begin(generation)
        last = node
    return records[last]


@pytest.mark.parametrize(
    ("mine", "theirs", "former"),
    [
        # A was primary in 1 and went on in 2; B took over in 3.
        (((A, "1"), (A, "2")), ((A, "1"), (B, "3")), A),
        # The same, with more generations behind it on both.
        (((A, "1"), (A, "2"), (A, "4")), ((A, "1"), (B, "3"), (B, "5"), (B, "6")), A),
        # B had taken over before they parted.
        (((A, "1"), (B, "2"), (A, "3")), ((A, "1"), (B, "2"), (B, "4")), B),
        # Nothing in common, or no way to tell.
        (((A, "1"),), ((B, "2"),), ""),
    ],
)
def test_records_tell_who_was_primary_when_the_two_parted(
    mine: tuple[tuple[str, str], ...], theirs: tuple[tuple[str, str], ...], former: str
) -> None:
    at_a = State(Policy(A, B), "", record=record_of(*mine))
    at_b = State(Policy(B, A), "", record=record_of(*theirs))
    assert compare(at_a.record.lineage, at_b.record.lineage) is Relation.DIVERGED
    assert former_primary(at_a, Status(B, record=at_b.record)) == former
    assert former_primary(at_b, Status(A, record=at_a.record)) == former


def test_record_of_an_older_version_tells_nothing_and_is_not_guessed() -> None:
    ours = replace(record_of((A, "1"), (A, "2")), origins="")
    theirs = record_of((A, "1"), (B, "3"))
    assert former_primary(State(Policy(A, B), "", record=ours), Status(B, record=theirs)) == ""


def test_mixture_that_is_promoted_by_force_is_no_heir_of_the_generation_it_names() -> None:
    """The other node may have written in that generation while this one was being brought up."""
    whole = record_of((A, "1"), (A, "2"))
    mixture = replace(whole, consistent=False, up_to_date=False, last_primary=False)
    assert mixture.begin("3").relation_to(whole) is Relation.DIVERGED
    assert mixture.begin("3").relation_to(record_of((A, "1"))) is Relation.DESCENDANT


def test_yielded_branch_is_the_stale_one_until_a_generation_begins() -> None:
    winner, loser = record_of((A, "1"), (A, "2")), record_of((A, "1"), (B, "3"))
    loser = replace(loser, yielded_to="2")
    later = winner.begin("4")
    for theirs in (winner, later):
        assert loser.relation_to(theirs) is Relation.ANCESTOR
        assert theirs.relation_to(loser) is Relation.DESCENDANT
    assert loser.begin("5").relation_to(winner) is Relation.DIVERGED
    assert loser.relation_to(record_of((A, "1"), (A, "6"))) is Relation.DIVERGED


def test_split_brain_text_names_the_command() -> None:
    state = State(Policy(A, B), "", contact=Contact.HEARD, record=DataRecord("1"))
    assert "hactl splitbrain yield" in split_brain_text(state)
