# SPDX-License-Identifier: Apache-2.0
"""Split brain: both nodes wrote without each other. Whose data wins, and who says so.

Nothing is overwritten before one of the two branches is *yielded*, durably, in the data record
of the node that holds it. From then on it is treated as the stale one (`DataRecord.relation_to`),
and the replicator keeps it aside before a resync changes anything of it. A branch is yielded
only while both nodes hear each other, so that both know that they have diverged, and by a node
that is not primary (any more).
"""

from __future__ import annotations

from dataclasses import dataclass

from haoperator.core.generation import Relation, compare
from haoperator.core.record import DataRecord
from haoperator.core.state import State
from haoperator.core.status import Phase, Status


def undecided(state: State, peer: Status) -> bool:
    """Whether the two have diverged and neither branch has been yielded to the other."""
    return state.record.relation_to(peer.record) is Relation.DIVERGED


def former_primary(state: State, peer: Status) -> str:
    """The node that had been primary when the two parted, `""` if the records do not tell.
    Symmetric, and without a clock: it went on with the generation that it had written, the
    other one took over from it."""
    mine = state.record.went_on_beside(peer.record)
    theirs = peer.record.went_on_beside(state.record)
    if mine is None or theirs is None or mine == theirs:
        return ""
    return state.policy.me if mine else state.policy.peer


def winner_by_policy(state: State, peer: Status) -> str:
    """The node whose branch wins without being asked for, `""`: an administrator chooses."""
    if not state.policy.former_primary_wins or not undecided(state, peer):
        return ""
    return former_primary(state, peer)


def generation_to_yield_to(state: State) -> str:
    """The peer's generation, if this node's branch is to give way to it now, else `""`."""
    peer = state.peer_heard
    if peer is None or yield_problem(state):
        return ""
    by_policy = winner_by_policy(state, peer) == state.policy.peer and not state.maintenance.on
    return peer.record.generation if state.yields_branch or by_policy else ""


def yield_problem(state: State) -> str:
    """Why the branch of this node cannot be yielded, `""` if it can."""
    name, peer = state.policy.peer, state.peer_heard
    if state.replica is None:
        return "the replicator is not running here (ha-replicator.service)"
    if peer is None:
        return f"{name} is not heard: only when both nodes see each other's data can one yield"
    if not undecided(state, peer):
        if state.record.yielded_to:
            return f"this node's data has yielded to {name}'s already"
        if peer.record.yielded_to:
            return f"{name}'s data has yielded to this node's already"
        return f"there is no split brain: this node and {name} share one history"
    if state.record.yielded_to in peer.record.lineage:
        return "both nodes have yielded: 'hactl promote --force' on the one whose data shall win"
    if state.phase in (Phase.PROMOTING, Phase.LEAVING):
        return f"this node is {state.phase}"
    if not peer.able or peer.phase is Phase.LEAVING:
        return f"{name} could not serve its data: its replicator does not run, or it is leaving"
    if not peer.record.current:
        return (
            f"the data of {name} is stale or a mixture, and cannot win; if it shall all the same: "
            f"'hactl promote --force' on {name} first"
        )
    return ""


def keeps_role(state: State, peer: Status) -> bool:
    """Exactly one of two diverged primaries goes on serving: the one whose data wins, while that
    is open the preferred one, else the first by name. Nothing is overwritten on either."""
    me, other = state.policy.me, state.policy.peer
    if by_policy := winner_by_policy(state, peer):
        return by_policy == me
    preferred = state.policy.preferred
    return (me != preferred, me) < (other != preferred, other)


def split_brain_text(state: State) -> str:
    """For an administrator: what has happened, and the command that ends it."""
    peer = state.peer.record.generation if state.peer else "?"
    name = state.policy.peer
    return (
        f"split brain: this node ({state.record.generation}) and {name} ({peer}) both wrote "
        "without each other; nothing is overwritten until you choose: "
        "'hactl splitbrain yield' on the node whose data shall lose"
    )


@dataclass(frozen=True, slots=True)
class Division:
    """A split brain as an administrator is told of it."""

    sides: tuple[tuple[str, str], ...]
    """Each node, and what its data is."""
    loser: str
    """Whose data yields, `""` while that is open."""
    ways: tuple[str, ...]
    """What ends it: which command to give where, or what goes on by itself."""


def division(state: State) -> Division | None:
    """What is known of a split brain that is not over; None if there is none."""
    me, other, peer = state.policy.me, state.policy.peer, state.peer_heard
    if peer is None or compare(state.record.lineage, peer.record.lineage) is not Relation.DIVERGED:
        if not state.record.yielded_to:
            return None
        way = f"start {other}, to which the data here has yielded"
        return Division(((me, f"generation {state.record.generation}"),), me, (way,))
    sides = (
        (me, _side(state.record, peer.record)),
        (other, _side(peer.record, state.record)),
    )
    relation = state.record.relation_to(peer.record)
    if relation is not Relation.DIVERGED:
        loser, winner = (me, other) if relation is Relation.ANCESTOR else (other, me)
        way = f"{loser} sets its data aside, and copies that of {winner}"
        return Division(sides, loser, (way,))
    if state.record.yielded_to in peer.record.lineage:
        way = "both have yielded: 'hactl promote --force' on the node whose data shall win"
        return Division(sides, "", (way,))
    if winner := winner_by_policy(state, peer):
        loser = me if winner == other else other
        return Division(sides, loser, (f"the data of {loser} yields: {winner} was primary before",))
    ways = tuple(
        f"'hactl splitbrain yield' on {loser}: the data of {winner} wins, what {loser} wrote is "
        "set aside"
        for loser, winner in ((other, me), (me, other))
    )
    return Division(sides, "", ways)


def _side(record: DataRecord, other: DataRecord) -> str:
    how = {
        True: "went on as the primary",
        False: "took over",
        None: "wrote without the other",
    }[record.went_on_beside(other)]
    return f"{how}; its data ends in generation {record.generation}"
