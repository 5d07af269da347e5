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
  answers (if there is one), and while the replication stream is dead too.
* A standby that found itself isolated marks itself outdated, durably: while it was cut
  off, its primary may have gone on alone with the witness's consent.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from haoperator.core.events import Witness
from haoperator.core.generation import Relation, compare
from haoperator.core.record import DataRecord
from haoperator.core.state import Contact, State
from haoperator.core.status import Phase, Status, Stream


class Answer(StrEnum):
    YES = "yes"
    ASK = "ask"
    """The peer is primary and would have to hand over first."""
    NO = "no"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether this node may take the role, and why (not)."""

    answer: Answer
    reason: str


def copy_problem(record: DataRecord, peer: str) -> str:
    """Why this copy of the data may not serve, `""` if it may."""
    if not record.generation:
        return "this node has never held the data: 'hactl promote' on the node that has it"
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
    if problem := copy_problem(state.record, peer_name):
        return Verdict(Answer.NO, problem)
    match state.contact:
        case Contact.HEARD if peer is not None:
            return _beside(state, peer)
        case Contact.SILENT:
            return _without_peer(state)
        case Contact.UNKNOWN:
            return Verdict(Answer.NO, f"nothing is known of {peer_name} yet")
        case _:
            return Verdict(Answer.NO, f"{peer_name} is up, but its operator says nothing yet")


def _equal_and_whole(mine: DataRecord, peer: DataRecord) -> bool:
    """Whether both copies end in the same generation and mine is no mixture. Then neither node
    went on without the other, whatever it feared when it marked itself outdated."""
    same = mine.generation != "" and compare(mine.lineage, peer.lineage) is Relation.EQUAL
    return same and mine.consistent


def _beside(state: State, peer: Status) -> Verdict:
    name = state.policy.peer
    relation = compare(state.record.lineage, peer.record.lineage)
    if relation is Relation.DIVERGED:
        return Verdict(Answer.NO, split_brain_text(state))
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
    if winner(state, peer) == state.policy.me:
        if peer.defers:
            return Verdict(Answer.YES, f"{name} holds no role, and both agree on this node")
        return Verdict(Answer.NO, f"waiting for {name} to agree that this node takes the role")
    return Verdict(Answer.NO, f"{name} is to take the role")


def _without_peer(state: State) -> Verdict:
    name = state.policy.peer
    if state.stream is Stream.SYNCED:
        return Verdict(
            Answer.NO, f"no heartbeat of {name}, but its replication stream is alive: not dead"
        )
    if not state.peer_unreachable:
        return Verdict(Answer.NO, f"{name} was heard on the replication stream a moment ago")
    if state.witness is Witness.UNREACHABLE:
        return Verdict(
            Answer.NO, f"neither {name} nor the witness answers: this node is the isolated one"
        )
    if state.promotable:
        return Verdict(Answer.YES, f"{name} is silent on every link, and the data here is complete")
    if state.record.proves_last_primary:
        return Verdict(
            Answer.YES, f"this node was the last primary and had left {name} behind durably"
        )
    return Verdict(
        Answer.NO,
        f"{name} is silent, and since its own restart this node cannot know whether {name} "
        f"has newer data: start {name}, or 'hactl promote --force'",
    )


def winner(state: State, peer: Status) -> str:
    """Which of two nodes that hear each other should be primary, neither being it; `""` for
    nobody. Symmetric: both nodes get the same answer from the same two statuses."""
    me, other = state.policy.me, state.policy.peer
    relation = compare(state.record.lineage, peer.record.lineage)
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
        if state.peer.outdated_for == state.next_generation:
            return f"{name} marked itself outdated"
        if state.peer.phase is Phase.LEAVING and not state.peer.record.current:
            return f"{name} left the cluster"
        return ""
    if state.peer_unreachable and state.witness is not Witness.UNREACHABLE:
        return f"{name} is silent on every link and on the replication stream"
    return ""


def isolated(state: State) -> bool:
    """Whether this node reaches nobody: not its peer on any path, and no witness."""
    return state.peer_unreachable and state.witness is Witness.UNREACHABLE


def can_take(peer: Status | None, state: State) -> bool:
    """Whether the peer could take over at once from this primary and do better."""
    return (
        peer is not None
        and peer.phase is Phase.SECOND
        and peer.promotable
        and peer.healthy
        and state.stream is Stream.SYNCED
    )


def split_brain_text(state: State) -> str:
    peer = state.peer.record.generation if state.peer else "?"
    return (
        f"split brain: this node ({state.record.generation}) and {state.policy.peer} ({peer}) "
        "both wrote without each other; nothing is overwritten until you choose"
    )
