# SPDX-License-Identifier: Apache-2.0
"""Why a node is what it is, in an administrator's words: `hactl why`.

Nothing is decided here. The sentences follow the same predicates that decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from haoperator.core.events import Probe, Witness
from haoperator.core.generation import Relation, compare
from haoperator.core.splitbrain import division
from haoperator.core.state import Contact, State
from haoperator.core.status import Phase, Stream
from haoperator.core.verdict import Answer, Situation, copy_problem, may_promote, situation


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is known, what follows from it, and what would make it otherwise."""

    evidence: tuple[tuple[str, str], ...]
    """What was looked at, and what it says."""
    conclusion: str
    """What all evidence together says of the peer."""
    rule: str
    """Which rule the present state follows from."""
    changes: tuple[str, ...]
    """What would change the decision."""


def explain(state: State) -> Explanation:
    """Explain the present state."""
    return Explanation(
        evidence=tuple(_evidence(state)),
        conclusion=_conclusion(state),
        rule=_rule(state),
        changes=tuple(_changes(state)),
    )


def _evidence(state: State) -> Iterator[tuple[str, str]]:
    name = state.policy.peer
    yield (
        "heartbeat",
        {
            Contact.HEARD: f"{name} is heard",
            Contact.FELT: f"the machine {name} is heard, its operator says nothing",
            Contact.SILENT: f"{name} is silent on every link",
            Contact.UNKNOWN: f"not watched for {state.policy.detect:g} s yet",
        }[state.contact],
    )
    yield "replication", _replication(state)
    if state.policy.arbiter:
        yield "arbiter", _arbiter(state)
    else:
        yield (
            "witness",
            {
                Witness.NONE: "none configured",
                Witness.REACHABLE: "answers",
                Witness.UNREACHABLE: "does not answer",
            }[state.witness],
        )
    yield (
        "virtual IPs",
        {
            Probe.NONE: "not asked: none configured, or they are here",
            Probe.ANSWERED: "another machine answers for one",
            Probe.UNANSWERED: "nobody answers",
        }[state.probe],
    )
    record = state.record
    problem = copy_problem(record, name)
    yield "data here", f"generation {record.generation or '(none)'}: {problem or 'complete'}"
    if (peer := state.peer_heard) is not None:
        relation = compare(record.lineage, peer.record.lineage)
        yield (
            f"data on {name}",
            {
                Relation.EQUAL: "the same generation",
                Relation.ANCESTOR: "newer than here",
                Relation.DESCENDANT: "older than here",
                Relation.DIVERGED: "written independently: split brain",
            }[relation],
        )
    if (divided := division(state)) is not None:
        yield from ((f"split brain: {node}", what) for node, what in divided.sides)
    if state.maintenance.on:
        yield "maintenance", "on"
    if not state.policy.automatic:
        yield "failover", "manual"
    if state.gave_up:
        yield "applications", "failed too often here"
    if state.not_ready:
        yield "readiness", f"no place to hand over to: {state.not_ready}"
    if (peer := state.peer_heard) is not None and not peer.healthy:
        yield f"readiness of {name}", "no place to hand over to: 'hactl why' there"


def _replication(state: State) -> str:
    if state.replica is None:
        return "the replicator does not run here"
    return {
        Stream.DISCONNECTED: "no stream",
        Stream.RESYNC: "a resync is under way",
        Stream.SYNCED: "in step",
        Stream.LOST: "was in step, and lost",
        Stream.HANDED_OVER: "handed over in order, nothing is missing",
        Stream.ALONE: f"without {state.policy.peer}, which is left behind",
        Stream.HELD: f"lost; writes wait until it is certain what {state.policy.peer} does",
    }[state.stream]


def _arbiter(state: State) -> str:
    if state.now < state.succession.retry_at:
        return f"does not answer: {state.succession.trouble}"
    if state.heir:
        return f"named {state.heir} heir of this generation"
    return "asked when the peer falls silent"


def _conclusion(state: State) -> str:
    name = state.policy.peer
    return {
        Situation.ALIVE: f"{name} is alive",
        Situation.LEFT: f"{name} announced that it leaves",
        Situation.MUTE: f"{name} is not dead, and does not say what it does",
        Situation.OUT_OF_REACH: f"{name} is alive, and out of reach of this node",
        Situation.SILENT: f"{name} is silent on every path, and this node is not the isolated one",
        Situation.ISOLATED: "this node is the isolated one",
        Situation.UNCERTAIN: f"it cannot be told yet what {name} does",
    }[situation(state)]


def _rule(state: State) -> str:
    name = state.policy.peer
    match state.phase:
        case Phase.PRIMARY if state.stream is Stream.SYNCED:
            return f"primary, and every write is acknowledged when {name} has it too"
        case Phase.PRIMARY if state.stream is Stream.HELD:
            return f"primary, and nothing is acknowledged before {name} cannot take over any more"
        case Phase.PRIMARY:
            return f"primary alone: {name} is left behind, durably, and cannot take over"
        case Phase.PROMOTING | Phase.DEMOTING | Phase.LEAVING:
            return f"{state.phase}: {state.reason}"
        case _:
            return f"primary here? {may_promote(state).reason}"


def _changes(state: State) -> Iterator[str]:
    name, detect = state.policy.peer, state.policy.detect
    if state.phase in (Phase.PROMOTING, Phase.DEMOTING, Phase.LEAVING):
        return
    if state.maintenance.on:
        yield "nothing moves by itself before 'hactl maintenance off'"
    if state.phase is Phase.PRIMARY:
        yield from _changes_of_primary(state)
        return
    if (divided := division(state)) is not None:
        yield from divided.ways
        return
    found = situation(state)
    if found is Situation.ISOLATED:
        yield f"a path to {name} or to the witness that works again"
    elif found is Situation.OUT_OF_REACH:
        yield f"a link to {name} that works again"
    elif found is Situation.MUTE:
        yield f"word of the operator on {name} (haoperator.service), or silence for {detect:g} s"
    elif found is Situation.UNCERTAIN:
        yield f"the first word of {name}, or silence for {detect:g} s"
    if state.promotable and found in (Situation.ALIVE, Situation.MUTE):
        yield f"silence of {name} on every path for {detect:g} s: this node takes over"
    if may_promote(state).answer is Answer.ASK:
        yield "'hactl swap': the nodes exchange their roles"
    if not state.promotable:
        yield f"{name} started and in step with this node"
        yield f"'hactl promote --force': what {name} wrote without this node is given up"
    elif not state.policy.automatic:
        yield "'hactl promote': failover is manual"


def _changes_of_primary(state: State) -> Iterator[str]:
    name = state.policy.peer
    if (divided := division(state)) is not None:
        yield from divided.ways
    elif state.stream is Stream.HELD:
        yield f"{name} marks itself outdated, or its silence is certain: this node goes on alone"
        yield f"{name} is in step again: both go on"
    elif state.stream is Stream.SYNCED:
        yield "'hactl swap', or an application that fails too often: the nodes exchange their roles"
    else:
        yield f"{name} in step again: then it could take over"
