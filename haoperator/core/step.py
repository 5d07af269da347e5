# SPDX-License-Identifier: Apache-2.0
"""One step of the failover core.

An event is first absorbed into the state (`_absorb`), then the rules of the phase
are applied until none of them has anything to add (`_settle`). Rules look at levels
only, never at the event, so a lost or repeated event changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import assert_never

from haoperator.core import effects as do
from haoperator.core import events as on
from haoperator.core.effects import Effect
from haoperator.core.generation import Relation
from haoperator.core.splitbrain import (
    generation_to_yield_to,
    keeps_role,
    split_brain_text,
    undecided,
    yield_problem,
)
from haoperator.core.state import (
    ARBITER_RETRY_SECONDS,
    HANDOVER_SECONDS,
    HELD_PATIENCE_SECONDS,
    REPLICA_RETURN_SECONDS,
    SWAP_BACK_SECONDS,
    YIELD_SECONDS,
    Contact,
    Gate,
    Seconds,
    State,
    Succession,
)
from haoperator.core.status import Maintenance, Phase, Role, Status, Stream
from haoperator.core.verdict import (
    Answer,
    can_take,
    isolated,
    may_be_left_behind,
    may_promote,
    peer_cannot_take_over,
    wants_heir,
    winner,
)

Step = tuple[State, tuple[Effect, ...]]

_CONNECTED = (Stream.RESYNC, Stream.SYNCED)

_SETTLE_LIMIT = 10
"""Rules that fire in one step. Two or three do; more would be a loop between them."""


def step(state: State, event: on.Event, now: Seconds) -> Step:
    """Absorb one event at the monotonic time `now`.

    Returns the new state and the effects to carry out, in order. Raises RuntimeError
    if the rules do not come to rest, which would be a defect of theirs.
    """
    state, answered = _absorb(replace(state, now=max(now, state.now)), event)
    state, settled = _settle(state)
    state, given_back = _give_claim_back(state)
    effects = (*answered, *settled, *given_back)
    status = status_of(state)
    if status == state.published:
        return state, effects
    return replace(state, published=status), (*effects, do.Publish(status))


def status_of(state: State) -> Status:
    """What this node publishes of itself."""
    peer = state.peer_heard
    # Not while a generation is being begun: `next_generation` is the one after it already, and
    # an answer to that would be at hand before the next loss of the stream.
    held = state.phase is Phase.PRIMARY and state.held_for >= HELD_PATIENCE_SECONDS
    held = held and not state.pending
    in_step = state.phase is Phase.PRIMARY and state.stream is Stream.SYNCED and not state.pending
    asks = state.phase is Phase.PROMOTING and not state.forced and peer is not None
    return Status(
        node=state.policy.me,
        phase=state.phase,
        record=state.record,
        stream=state.stream,
        promotable=state.promotable and state.phase is not Phase.LEAVING,
        able=state.replica is not None,
        healthy=state.healthy,
        would_begin=state.next_generation if in_step else "",
        asks_outdate=state.next_generation if held else "",
        outdated_for=state.outdated_for,
        asks_role=asks and peer is not None and peer.phase is Phase.PRIMARY,
        yields=state.yields,
        defers=(
            peer is not None
            and not state.phase.holds_role
            and state.role in (Role.SECONDARY, None)
            and not state.pending
            and winner(state, peer) == state.policy.peer
        ),
        maintenance=state.maintenance,
    )


def _relation(state: State, peer: Status) -> Relation:
    return state.record.relation_to(peer.record)


def _enter(state: State, phase: Phase, reason: str) -> State:
    return replace(state, phase=phase, since=state.now, reason=reason)


# -- events ---------------------------------------------------------------------------


def _absorb(state: State, event: on.Event) -> Step:
    match event:
        case on.TimePassed():
            return state, ()
        case on.PeerHeard(status):
            taken = status.phase is Phase.PRIMARY
            yields_until = 0.0 if taken else state.yields_until
            state = replace(state, contact=Contact.HEARD, peer=status, yields_until=yields_until)
            return _keep_maintenance(state, max(state.maintenance, status.maintenance))
        case on.PeerFelt():
            return replace(state, contact=Contact.FELT, peer=None), ()
        case on.PeerLost():
            return replace(state, contact=Contact.SILENT, yields_branch=False), ()
        case on.WitnessChanged(witness):
            return replace(state, witness=witness), ()
        case on.VipProbed(probe):
            return replace(state, probe=probe), ()
        case on.HeirTold(generation, heir):
            return _heir_told(state, generation, heir), ()
        case on.ArbiterFailed(reason):
            retry_at = state.now + ARBITER_RETRY_SECONDS
            told = replace(state.succession, asked=False, trouble=reason, retry_at=retry_at)
            return replace(state, succession=told), ()
        case on.ReplicaChanged():
            return _replica_changed(state, event), ()
        case on.ReplicaGone():
            state = replace(state, replica=None, replica_gone=state.now, pending=False)
            return replace(state, saw_synced=False), ()
        case on.ReplicaDone():
            answered = state.outdating or state.outdated_for
            return replace(state, pending=False, outdated_for=answered, outdating=""), ()
        case on.ReplicaFailed(reason):
            return _replica_failed(state, reason)
        case on.PromotionAsked():
            return _promotion_asked(state)
        case on.GateChanged(active):
            return _gate_changed(state, active), ()
        case on.AppGaveUp(unit):
            return _app_gave_up(state, unit)
        case on.ReadinessChanged(problem):
            return replace(state, not_ready=problem), ()
        case on.SwapCommanded():
            return _swap_commanded(state)
        case on.PromoteCommanded(force):
            return _promote_commanded(state, force)
        case on.MaintenanceCommanded(wanted):
            count = state.maintenance.count + 1
            state, effects = _keep_maintenance(state, Maintenance(count, wanted))
            return state, (do.Accept(), *effects)
        case on.YieldCommanded():
            if problem := yield_problem(state):
                return state, (do.Refuse(problem),)
            return replace(state, yields_branch=True), (do.Accept(),)
        case on.LeaveCommanded():
            return _leave(state)
        case _:
            assert_never(event)


def _keep_maintenance(state: State, maintenance: Maintenance) -> Step:
    if maintenance == state.maintenance:
        return state, ()
    return replace(state, maintenance=maintenance), (do.KeepMaintenance(maintenance),)


def _heir_told(state: State, generation: str, heir: str) -> State:
    if state.succession.to_disclaim:
        mine = heir == state.policy.me  # the answer to a claim made before
        return replace(state, succession=Succession(to_disclaim=mine))
    return replace(state, succession=Succession(generation, heir))


def _replica_changed(state: State, event: on.ReplicaChanged) -> State:
    saw_synced = state.saw_synced or event.stream is Stream.SYNCED
    changed, connected = event.stream is not state.stream, event.stream in _CONNECTED
    if changed and event.stream is Stream.SYNCED:
        # The replicator of a node that boots may be in step before its operator can look.
        came = state.stream is Stream.RESYNC or (state.joins and state.replica is None)
        returned = event.role is Role.SECONDARY and came
        told = replace(state.succession, heir="", to_disclaim=state.policy.arbiter)
        returned_at = state.now if returned else state.returned_at
        state = replace(state, succession=told, returned_at=returned_at)
    if changed and connected and event.role is Role.PRIMARY:
        # Whatever the peer answered before, or answers late, is no answer from now on.
        state = replace(state, begun=state.begun + 1)
    if changed and (connected or event.stream is Stream.HANDED_OVER):
        # This is word of the peer, whatever was told of the time when it was heard.
        event = replace(event, heard=max(event.heard, state.now))
    elif state.replica is not None:
        event = replace(event, heard=max(event.heard, state.replica.heard))
    held_since = state.held_since if state.stream is Stream.HELD else state.now
    replica_since = state.replica_since if state.replica else state.now
    if changed and state.phase is Phase.PRIMARY:
        state = replace(state, reason=_beside_words(event.stream, state))
    state = replace(
        state,
        replica=event,
        record=event.record,
        saw_synced=saw_synced,
        held_since=held_since,
        replica_since=replica_since,
    )
    if connected and state.peer is not None and state.peer.phase is Phase.LEAVING:
        # It is back: what it said when it left must not license anything any more.
        return replace(state, peer=None, contact=Contact.FELT)
    return state


def _beside_words(stream: Stream, state: State) -> str:
    """Why a primary is PRIM or ALONE. ALONE itself has its reason from what led to it."""
    name = state.policy.peer
    match stream:
        case Stream.SYNCED:
            return f"in step with {name}"
        case Stream.HELD:
            return f"the stream to {name} is lost: writes wait until {name} cannot take over"
        case _:
            return state.reason


def _replica_failed(state: State, reason: str) -> Step:
    state = replace(state, pending=False, outdating="")
    if state.phase is Phase.PROMOTING:
        return _refuse_gate(state, f"the replicator could not make the data writable: {reason}")
    return state, ()


def _promotion_asked(state: State) -> Step:
    if state.phase is Phase.PRIMARY and state.role is Role.PRIMARY:
        return replace(state, gate=Gate.OPEN), (do.OpenGate(),)
    state = replace(state, gate=Gate.ASKING)
    if state.phase is Phase.PROMOTING:
        return state, ()
    if state.phase in (Phase.LEAVING, Phase.DEMOTING):
        return _refuse_gate(state, f"this node is {state.phase}")
    verdict = may_promote(state)
    if verdict.answer is Answer.NO:
        return _refuse_gate(state, verdict.reason)
    return _enter(state, Phase.PROMOTING, f"asked for by systemd: {verdict.reason}"), ()


def _refuse_gate(state: State, reason: str) -> Step:
    asked = state.gate is Gate.ASKING
    state = replace(state, gate=Gate.CLOSED, forced=False)
    if state.phase is Phase.PROMOTING:
        state = _enter(state, Phase.WAITING, reason)
    return state, (do.RefuseGate(reason),) if asked else ()


def _gate_changed(state: State, active: bool) -> State:
    if active:
        return replace(state, gate=Gate.OPEN)
    if state.phase is Phase.PROMOTING and state.gate is Gate.ASKING:
        # The unit was stopped while it waited for us.
        state = _enter(replace(state, forced=False), Phase.WAITING, "the promotion was cancelled")
    return replace(state, gate=Gate.CLOSED)


def _app_gave_up(state: State, unit: str) -> Step:
    if state.phase is not Phase.PRIMARY:
        return state, ()
    if state.maintenance.on:
        return replace(state, reason=f"{unit} failed too often, but maintenance is on"), ()
    peer = state.peer_heard
    if peer is not None and peer.healthy and can_take(peer, state):
        state = replace(state, gave_up_at=state.now)
        return _give_role_away(state, f"{unit} failed too often here")
    reason = f"{unit} failed too often, and {state.policy.peer} cannot take over: trying again"
    return replace(state, reason=reason), (do.RestartApp(unit),)


def _swap_commanded(state: State) -> Step:
    if state.phase is Phase.PRIMARY:
        if not can_take(state.peer_heard, state):
            return state, (do.Refuse(f"{state.policy.peer} is not an up-to-date standby"),)
        state, effects = _give_role_away(state, "swap asked for here")
        return state, (do.Accept(), *effects)
    verdict = may_promote(state)
    if state.phase not in (Phase.SECOND, Phase.WAITING) or verdict.answer is not Answer.ASK:
        return state, (do.Refuse(verdict.reason),)
    state = _enter(state, Phase.PROMOTING, "swap asked for here")
    return state, (do.Accept(), do.StartPrimary())


def _promote_commanded(state: State, force: bool) -> Step:
    if state.phase.holds_role:
        return state, (do.Refuse(f"this node is {state.phase} already"),)
    if problem := _promote_problem(state, force):
        return state, (do.Refuse(problem),)
    reason = "promotion forced by hand" if force else "promoted by hand"
    first_start = not state.record.generation
    state = replace(_enter(state, Phase.PROMOTING, reason), forced=force or first_start)
    return state, (do.Accept(), do.StartPrimary())


def _promote_problem(state: State, force: bool) -> str:
    """Why `hactl promote` is refused. Force overrides doubt, never a primary that is heard."""
    name, peer = state.policy.peer, state.peer_heard
    if state.replica is None:
        return "the replicator is not running here (ha-replicator.service)"
    if state.phase is Phase.LEAVING:
        return "this node is leaving the cluster"
    if peer is not None and peer.phase.holds_role:
        return f"{name} is {peer.phase}: use 'hactl swap'"
    if state.stream in _CONNECTED:
        return f"{name} is primary, and its data comes here: use 'hactl swap'"
    if force:
        return ""
    if not state.record.generation:
        if peer is None:
            return (
                f"{name} is not reachable, so it can't be told whether it has newer data; "
                "if it has none: 'hactl promote --force'"
            )
        if peer.record.generation:
            return f"{name} has data and this node has none: 'hactl promote' there"
        return ""
    verdict = may_promote(state)
    return verdict.reason if verdict.answer is Answer.NO else ""


def _leave(state: State) -> Step:
    peer = state.peer_heard
    stays = peer is not None and winner(replace(state, phase=Phase.LEAVING), peer) == peer.node
    beside = peer is not None and not undecided(state, peer)  # else nobody goes on with this data
    stays = stays or (peer is not None and beside and peer.phase.holds_role)
    gone = state.role is Role.SECONDARY and state.record.up_to_date and not state.pending
    state = _enter(state, Phase.LEAVING, "leaving the cluster in order")
    if stays and gone:
        # Whoever leaves tells itself, durably, that its peer goes on without it, so that
        # the peer need not wait for a silence.
        return replace(state, pending=True), (do.MarkOutdated(),)
    return state, ()


# -- the arbiter ----------------------------------------------------------------------


def _claim(state: State) -> Step:
    """Ask to be named heir, which takes back the wish not to be."""
    return _ask_arbiter(
        replace(state, succession=replace(state.succession, to_disclaim=False)),
        do.Claim(state.record.generation),
    )


def _give_claim_back(state: State) -> Step:
    if state.succession.to_disclaim and state.stream is Stream.SYNCED:
        return _ask_arbiter(state, do.Disclaim(state.record.generation))
    return state, ()


def _ask_arbiter(state: State, question: do.Claim | do.Disclaim) -> Step:
    told = state.succession
    if told.asked or state.now < told.retry_at:
        return state, ()
    return replace(state, succession=replace(told, asked=True)), (question,)


# -- rules ----------------------------------------------------------------------------


def _settle(state: State) -> Step:
    effects: tuple[Effect, ...] = ()
    for _ in range(_SETTLE_LIMIT):
        after, more = _RULES[state.phase](state)
        effects += more
        if after == state:
            return state, effects
        state = after
    raise RuntimeError(f"the rules of the core do not come to rest in {state.phase}")


def _standby(state: State) -> Step:
    if state.gate is Gate.OPEN:
        if state.role in (Role.PRIMARY, Role.HELD):
            return _enter(state, Phase.PRIMARY, "found running as primary"), ()
        if state.role is Role.SECONDARY:
            state = _enter(state, Phase.DEMOTING, "the gate is open but the data is read-only")
            return state, (do.StartSecondary(),)
        return state, ()
    if state.pending or state.replica is None:
        return state, ()
    if state.role is not Role.SECONDARY:
        return replace(state, pending=True), (do.BecomeSecondary(),)
    if to := generation_to_yield_to(state):
        return replace(state, pending=True, yields_branch=False), (do.YieldBranch(to),)
    if nonce := _outdate_to_mark(state):
        return replace(state, pending=True, outdating=nonce), (do.MarkOutdated(),)
    record = state.record
    if may_be_left_behind(state) and record.up_to_date and not record.last_primary:
        # It may hear us although we do not hear it: then it need not wait.
        answered = state.peer.would_begin if state.peer is not None else ""
        return replace(state, pending=True, outdating=answered), (do.MarkOutdated(),)
    if record.up_to_date and _is_overtaken(state) and state.stream not in _CONNECTED:
        # The peer is heard to write alone, though it hears nothing: when it is silent later,
        # this copy must not pass for complete.
        return replace(state, pending=True), (do.MarkOutdated(),)
    if not _may_act_by_itself(state):
        return _named(state), ()
    verdict = may_promote(state)
    if verdict.answer is Answer.YES:
        return _enter(state, Phase.PROMOTING, verdict.reason), (do.StartPrimary(),)
    if verdict.answer is Answer.CLAIM:
        state, effects = _claim(state)
        return _named(state), effects
    if verdict.answer is Answer.ASK and _takes_role_back(state):
        reason = "this node is the preferred one, and in step again"
        state = _enter(replace(state, returned_at=None), Phase.PROMOTING, reason)
        return state, (do.StartPrimary(),)
    return _named(state), ()


def _named(state: State) -> State:
    """WAITING or SECOND, by whether this copy is known to be complete."""
    if state.promotable:
        if state.phase is Phase.SECOND:
            return state
        return _enter(state, Phase.SECOND, f"in step with {state.policy.peer}")
    if state.stream is Stream.RESYNC:
        reason = f"copying what changed on {state.policy.peer}"
    else:
        reason = may_promote(state).reason
    if state.phase is Phase.WAITING:
        return replace(state, reason=reason)
    return _enter(state, Phase.WAITING, reason)


def _outdate_to_mark(state: State) -> str:
    """The generation that the peer, a primary, asks to begin without this node."""
    peer = state.peer_heard
    if peer is None or not peer.asks_outdate or peer.asks_outdate == state.outdated_for:
        return ""
    relation = _relation(state, peer)
    return peer.asks_outdate if relation in (Relation.EQUAL, Relation.ANCESTOR) else ""


def _may_act_by_itself(state: State) -> bool:
    """Whether this standby may take the role, if the verdict allows it, without being told."""
    if state.yields or state.maintenance.on:
        return False
    if state.contact is Contact.SILENT and not state.policy.automatic:
        return state.record.proves_last_primary
    return True


def _takes_role_back(state: State) -> bool:
    """Whether the preferred node has come back and stayed in step. A swap by hand is respected:
    it brings nobody back into step."""
    if state.policy.preferred != state.policy.me or not state.policy.automatic:
        return False
    if state.returned_at is None or not state.healthy:
        return False
    return state.now - state.returned_at >= SWAP_BACK_SECONDS


def _promoting(state: State) -> Step:
    if state.now - state.since > HANDOVER_SECONDS:
        return _give_up_promotion(state, f"{state.policy.peer} did not hand over in time")
    if may_be_left_behind(state) and state.role is Role.SECONDARY and not state.forced:
        return _give_up_promotion(state, may_promote(state).reason)
    if state.gate is not Gate.ASKING or state.pending:
        return state, ()
    if state.role is Role.PRIMARY:
        state = _enter(
            replace(
                state,
                gate=Gate.OPEN,
                forced=False,
                yields_until=0.0,
                outdated_for="",
                gave_up_at=None,
                returned_at=None,
            ),
            Phase.PRIMARY,
            state.reason,
        )
        return state, (do.OpenGate(),)
    # Asked again here, because much may have happened since the target was started.
    verdict = may_promote(state)
    peer = state.peer_heard
    beside_primary = peer is not None and peer.phase.holds_role
    if state.forced and (beside_primary or state.stream in _CONNECTED):
        return _give_up_promotion(state, f"{state.policy.peer} has become primary meanwhile")
    if state.forced and state.replica is not None:
        return _become_primary(state, state.next_generation)
    match verdict.answer:
        case Answer.YES:
            beside_equal = peer is not None and _relation(state, peer) is Relation.EQUAL
            return _become_primary(state, "" if beside_equal else state.next_generation)
        case Answer.ASK:
            return state, ()
        case Answer.CLAIM:
            return _claim(state)
        case Answer.NO if _handover_under_way(state):
            return state, ()
        case Answer.NO:
            return _give_up_promotion(state, verdict.reason)
        case _:
            assert_never(verdict.answer)


def _handover_under_way(state: State) -> bool:
    """The peer is demoting for us, or has demoted and did not yet say so: the end of the stream
    may be here before the heartbeat that tells of it."""
    peer = state.peer_heard
    if peer is None or not state.promotable or _relation(state, peer) is not Relation.EQUAL:
        return False
    ended = state.stream is Stream.HANDED_OVER and peer.phase is Phase.PRIMARY
    return ended or peer.phase is Phase.DEMOTING or winner(state, peer) == state.policy.me


def _become_primary(state: State, generation: str) -> Step:
    """Beside a peer with an equal copy the generation is kept (`""`): writes wait until the
    stream to it stands, or it has marked itself outdated. Else one begins here, alone."""
    begun = state.begun + 1 if generation else state.begun
    return replace(state, pending=True, begun=begun), (do.BecomePrimary(generation, state.forced),)


def _give_up_promotion(state: State, reason: str) -> Step:
    if state.gate is Gate.ASKING:
        return _refuse_gate(state, reason)
    return _enter(replace(state, forced=False), Phase.WAITING, reason), (do.StartSecondary(),)


def _primary(state: State) -> Step:
    if state.gate is Gate.CLOSED:
        state = replace(state, yields_until=state.now + YIELD_SECONDS)
        return _enter(state, Phase.DEMOTING, "the primary role was stopped through systemd"), ()
    if state.replica is None:
        if state.now - state.replica_gone > REPLICA_RETURN_SECONDS:
            return _stop_role(state, "the replicator did not come back")
        return state, ()
    if state.pending:
        return state, ()
    if state.role is Role.HELD:
        return replace(state, pending=True), (do.BecomePrimary(""),)
    if state.role is Role.SECONDARY:
        # The gate is being closed, by systemd: the same as above, heard in another order.
        return _give_role_away(state, "the data became read-only under the primary")
    return _primary_beside(state)


def _primary_beside(state: State) -> Step:
    peer = state.peer_heard
    if peer is not None:
        relation = _relation(state, peer)
        if relation is Relation.ANCESTOR:
            return _stop_role(state, f"{state.policy.peer} has newer data: it was primary since")
        if generation_to_yield_to(state):
            return _stop_role(state, f"split brain: the data here yields to {state.policy.peer}'s")
        both = relation is Relation.DIVERGED and peer.phase is Phase.PRIMARY
        if both and not keeps_role(state, peer):
            return _stop_role(state, split_brain_text(state))
    if state.stream is Stream.HELD:
        if why := peer_cannot_take_over(state):
            generation = state.next_generation
            state = replace(state, pending=True, begun=state.begun + 1, reason=why)
            return state, (do.ContinueAlone(generation),)
        if (why := isolated(state)) and not state.maintenance.on:
            return _stop_role(state, f"{why} and stops")
        if wants_heir(state):
            return _claim(state)
    if peer is not None and peer.asks_role and peer.promotable and state.stream is Stream.SYNCED:
        return _give_role_away(state, f"{state.policy.peer} asked for the role")
    return state, ()


def _give_role_away(state: State, reason: str) -> Step:
    return _stop_role(replace(state, yields_until=state.now + YIELD_SECONDS), reason)


def _stop_role(state: State, reason: str) -> Step:
    return _enter(state, Phase.DEMOTING, reason), (do.StartSecondary(),)


def _demoting(state: State) -> Step:
    if state.pending:
        return state, ()
    # What waits to write, and never will, would keep the applications from stopping.
    hopeless = state.stream is Stream.HELD and (isolated(state) or _is_overtaken(state))
    if state.role in (Role.PRIMARY, Role.HELD) and (state.gate is Gate.CLOSED or hopeless):
        return replace(state, pending=True), (do.BecomeSecondary(),)
    if state.gate is not Gate.CLOSED:
        return state, ()
    return _enter(state, Phase.WAITING, state.reason), ()


def _is_overtaken(state: State) -> bool:
    """Whether the peer is heard to have begun a generation without this node."""
    peer = state.peer_heard
    return peer is not None and _relation(state, peer) is Relation.ANCESTOR


def _leaving(state: State) -> Step:
    if state.gate is Gate.CLOSED and state.role in (Role.PRIMARY, Role.HELD) and not state.pending:
        return replace(state, pending=True), (do.BecomeSecondary(),)
    return state, ()


_RULES: dict[Phase, Callable[[State], Step]] = {
    Phase.WAITING: _standby,
    Phase.SECOND: _standby,
    Phase.PROMOTING: _promoting,
    Phase.PRIMARY: _primary,
    Phase.DEMOTING: _demoting,
    Phase.LEAVING: _leaving,
}
