# SPDX-License-Identifier: Apache-2.0
"""Who may be primary: pure predicates over what one node knows.

The argument for safety, in the order of the code:

* A write is acknowledged when both nodes have it, or after its primary durably
  began a generation of its own. So *equal generations and `up_to_date`* means:
  this copy holds every acknowledged write.
* A primary that lost the stream holds its writes (`Stream.HELD`) until it knows
  that its peer cannot take over: the peer durably marked itself outdated, or is
  silent while this node is not the isolated one. Until then it acknowledges
  nothing, so that being cut off costs time, never data.
* Two nodes that hear each other decide by the same symmetric function on the same
  two records, and the winner waits until the loser says so (`defers`).
* A node that hears nobody takes over only from a current copy, while a witness
  answers (if there is one), while the replication stream is dead too, and while nobody
  answers for the virtual IPs. `situation` is the one place where evidence is weighed.
* A standby that found itself isolated, or its primary alive and out of reach, marks itself
  outdated, durably: its primary may have gone on alone meanwhile.
* With an arbiter, going on alone after a silence takes its word too: it names one heir of
  each generation, once, so that no assumption about the paths is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from haoperator.core.events import Probe, Witness
from haoperator.core.generation import Relation
from haoperator.core.record import DataRecord
from haoperator.core.splitbrain import split_brain_text, undecided
from haoperator.core.state import Contact, State
from haoperator.core.status import Phase, Status, Stream


class Answer(StrEnum):
    YES = "yes"
    ASK = "ask"
    """The peer is primary and would have to hand over first."""
    CLAIM = "claim"
    """The arbiter would have to name this node the heir first."""
    NO = "no"


class Situation(StrEnum):
    """What all evidence together says of the peer."""

    ALIVE = "alive"
    LEFT = "left"
    """It announced that it leaves the cluster."""
    MUTE = "mute"
    """Its machine or its replicator is heard, but its operator says nothing."""
    OUT_OF_REACH = "out of reach"
    """Silent on every path between the nodes, but its virtual IP answers."""
    SILENT = "silent"
    """On every path, and this node is not the isolated one."""
    ISOLATED = "isolated"
    """Silent on every path, and the witness too: this node is the isolated one."""
    UNCERTAIN = "uncertain"
    """Not watched for long enough to tell."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether this node may take the role, and why (not)."""

    answer: Answer
    reason: str


def copy_problem(record: DataRecord, peer: str) -> str:
    """Why this copy of the data may not serve, `""` if it may."""
    if not record.generation:
        return "this node has never held the data: 'hactl promote' on the node that has it"
    if record.yielded_to:
        return f"the data here has yielded to {peer}'s: it is set aside, and replaced; start {peer}"
    if not record.consistent:
        return (
            f"the data here is a mixture: its resynchronisation from {peer} was not finished; "
            f"start {peer} to finish it"
        )
    if not record.up_to_date:
        return f"the data here is stale: {peer} went on without this node; start {peer} first"
    return ""


def may_promote(state: State) -> Verdict:
    """Whether this node may take the role now, without being forced."""
    peer_name = state.policy.peer
    if state.replica is None:
        return Verdict(Answer.NO, "the replicator is not running here (ha-replicator.service)")
    peer = state.peer_heard
    if peer is not None and _equal_and_whole(state.record, peer.record):
        return _beside(state, peer)
    if peer is not None and undecided(state, peer):
        return Verdict(Answer.NO, split_brain_text(state))
    if problem := copy_problem(state.record, peer_name):
        return Verdict(Answer.NO, problem)
    if peer is not None:
        return _beside(state, peer)
    return _without_peer(state)


def situation(state: State) -> Situation:
    """Weigh the evidence: heartbeats, the stream, the witness, the virtual IPs."""
    if (peer := state.peer_heard) is not None:
        return Situation.LEFT if peer.phase is Phase.LEAVING else Situation.ALIVE
    if state.contact is Contact.FELT or state.stream is Stream.SYNCED:
        return Situation.MUTE
    if state.contact is not Contact.SILENT:
        return Situation.UNCERTAIN
    if state.replica is not None and state.now - state.replica_since < state.policy.detect:
        return Situation.UNCERTAIN
    if not state.peer_unreachable:
        return Situation.MUTE
    if state.probe is Probe.ANSWERED:
        return Situation.OUT_OF_REACH
    if state.witness is Witness.UNREACHABLE and not state.policy.arbiter:
        return Situation.ISOLATED
    return Situation.SILENT


def _equal_and_whole(mine: DataRecord, peer: DataRecord) -> bool:
    """Whether both copies end in the same generation and mine is no mixture. Then neither node
    went on without the other, whatever it feared when it marked itself outdated."""
    same = mine.generation != "" and mine.relation_to(peer) is Relation.EQUAL
    return same and mine.consistent


def _beside(state: State, peer: Status) -> Verdict:
    name = state.policy.peer
    record = state.record
    relation = record.relation_to(peer.record)
    if relation is Relation.ANCESTOR:
        return Verdict(
            Answer.NO,
            f"the data here is stale: {name} has generation {peer.record.generation}, "
            f"this node only {state.record.generation}",
        )
    if peer.phase.holds_role:
        if relation is Relation.EQUAL and state.stream is Stream.SYNCED:
            return Verdict(Answer.ASK, f"{name} is primary and is asked to hand over")
        return Verdict(Answer.NO, f"{name} is {peer.phase}, and this node is not in step with it")
    if relation is Relation.DESCENDANT and not (record.last_primary or record.peer_outdated):
        # It was in step when this node gave the role away: that is from before.
        return Verdict(Answer.NO, f"waiting for {name} to say how its data stands now")
    if winner(state, peer) == state.policy.me:
        if peer.defers:
            return Verdict(Answer.YES, f"{name} holds no role, and both agree on this node")
        return Verdict(Answer.NO, f"waiting for {name} to agree that this node takes the role")
    return Verdict(Answer.NO, f"{name} is to take the role")


def _without_peer(state: State) -> Verdict:
    name = state.policy.peer
    match situation(state):
        case Situation.SILENT if state.promotable:
            return _as_heir(state)
        case Situation.SILENT if state.record.proves_last_primary:
            return Verdict(
                Answer.YES, f"this node was the last primary and had left {name} behind durably"
            )
        case Situation.SILENT:
            return Verdict(
                Answer.NO,
                f"{name} is silent, and since its own restart this node cannot know whether "
                f"{name} has newer data: start {name}, or 'hactl promote --force'",
            )
        case Situation.ISOLATED:
            return Verdict(Answer.NO, isolated(state))
        case Situation.OUT_OF_REACH:
            return Verdict(
                Answer.NO,
                f"{name} is silent on every link, but a virtual IP still answers: {name} lives, "
                "and the network between the nodes is to be repaired",
            )
        case Situation.MUTE if state.contact is Contact.FELT:
            return Verdict(Answer.NO, f"{name} is up, but its operator says nothing yet")
        case Situation.MUTE if state.stream is Stream.SYNCED:
            return Verdict(
                Answer.NO, f"no heartbeat of {name}, but its replication stream is alive: not dead"
            )
        case Situation.MUTE:
            return Verdict(Answer.NO, f"{name} was heard on the replication stream a moment ago")
        case _:
            return Verdict(Answer.NO, f"nothing is known of {name} yet")


def _as_heir(state: State) -> Verdict:
    """The peer is silent and the copy here is complete."""
    name = state.policy.peer
    why = f"{name} is silent on every link, and the data here is complete"
    if not state.policy.arbiter:
        return Verdict(Answer.YES, why)
    match state.heir:
        case state.policy.me:
            return Verdict(Answer.YES, f"{why}; the arbiter named this node its heir")
        case "":
            trouble = state.succession.trouble
            asked = f"does not answer: {trouble}" if trouble else "is asked"
            return Verdict(Answer.CLAIM, f"{why}; the arbiter {asked}")
        case _:
            return Verdict(Answer.NO, f"{name} is silent, but the arbiter let it go on alone")


def winner(state: State, peer: Status) -> str:
    """Which of two nodes that hear each other should be primary, neither being it; `""` for
    nobody. Symmetric: both nodes get the same answer from the same two statuses."""
    me, other = state.policy.me, state.policy.peer
    relation = state.record.relation_to(peer.record)
    mine = state.phase is not Phase.LEAVING and state.replica is not None
    theirs = peer.phase is not Phase.LEAVING and peer.able
    mine = mine and (state.record.current or _equal_and_whole(state.record, peer.record))
    theirs = theirs and (peer.record.current or _equal_and_whole(peer.record, state.record))
    if relation is Relation.DIVERGED:
        return ""
    if relation is Relation.ANCESTOR:
        return other if theirs else ""
    if relation is Relation.DESCENDANT:
        return me if mine else ""
    if mine != theirs:
        return me if mine else other
    if not mine:
        return ""

    def rank(name: str, yields: bool, healthy: bool, record: DataRecord) -> tuple[object, ...]:
        preferred = name == state.policy.preferred
        return (
            yields,
            not healthy,
            not record.current,
            not record.last_primary,
            not preferred,
            name,
        )

    my_rank = rank(me, state.yields, state.healthy, state.record)
    peer_rank = rank(other, peer.yields, peer.healthy, peer.record)
    return me if my_rank < peer_rank else other


def peer_cannot_take_over(state: State) -> str:
    """For a primary whose writes are held: why its peer can't become primary without
    resynchronising first, so that going on alone is safe. `""` if it might."""
    name = state.policy.peer
    if state.record.peer_outdated:
        return f"{name} was left behind already"
    if state.contact is Contact.HEARD and state.peer is not None:
        if state.peer.outdated_for == state.next_generation and not state.peer.record.current:
            return f"{name} marked itself outdated"
        if state.peer.phase is Phase.LEAVING and not state.peer.record.current:
            return f"{name} left the cluster"
        return ""
    if situation(state) is Situation.SILENT:
        why = f"{name} is silent on every link and on the replication stream"
        if not state.policy.arbiter:
            return why
        if state.heir == state.policy.me:
            return f"{why}; the arbiter named this node its heir"
    return ""


def wants_heir(state: State) -> bool:
    """For a primary whose writes are held: whether the arbiter is to be asked who goes on."""
    silent = situation(state) is Situation.SILENT
    return state.policy.arbiter and silent and not state.heir


def isolated(state: State) -> str:
    """Why this primary or standby is the one that is cut off, `""` if it is not: it reaches
    nobody, or the arbiter let the peer go on."""
    name = state.policy.peer
    match situation(state):
        case Situation.ISOLATED:
            return f"neither {name} nor the witness answers: this node is the isolated one"
        case Situation.SILENT if state.heir == name:
            return f"{name} is silent here, and the arbiter let it go on alone"
        case Situation.SILENT if state.policy.arbiter and state.now < state.succession.retry_at:
            return f"neither {name} nor the arbiter answers: this node is the isolated one"
        case _:
            return ""


def may_be_left_behind(state: State) -> bool:
    """Whether the primary may have gone on alone while this standby could not tell. An arbiter
    is simply asked, when it matters."""
    cut_off = situation(state) in (Situation.ISOLATED, Situation.OUT_OF_REACH)
    return cut_off and not state.policy.arbiter


def can_take(peer: Status | None, state: State) -> bool:
    """Whether the peer could take over at once from this primary."""
    return (
        peer is not None
        and peer.phase is Phase.SECOND
        and peer.promotable
        and state.stream is Stream.SYNCED
    )
