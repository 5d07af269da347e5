# SPDX-License-Identifier: Apache-2.0
"""What the core remembers, and how it looks from outside."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import StrEnum

from haoperator.core.events import Probe, ReplicaChanged, Witness
from haoperator.core.record import DataRecord
from haoperator.core.status import Maintenance, Phase, Role, Status, Stream

Seconds = float

YIELD_SECONDS: Seconds = 15.0
"""How long a node that gave the role away waits for the peer to take it."""
HANDOVER_SECONDS: Seconds = 150.0
"""How long a promotion may take: the peer's applications have to stop in order first, for which
the configuration gives them at most 2 minutes. Below `TimeoutStartSec=` of ha-promote.service, so
that the reason given is ours."""
HELD_PATIENCE_SECONDS: Seconds = 0.3
"""How long writes are held before the peer is asked to mark itself outdated: a new stream,
after a hand-over or a restarted replicator, stands in a few milliseconds."""
REPLICA_RETURN_SECONDS: Seconds = 10.0
"""How long a primary waits for its replicator to come back before it gives up the role."""
SWAP_BACK_SECONDS: Seconds = 10.0
"""How long the preferred node, in step again, waits before it takes its role back."""
ARBITER_RETRY_SECONDS: Seconds = 1.0


@dataclass(frozen=True, slots=True)
class Policy:
    """What the configuration says. `me` and `peer` are node names."""

    me: str
    peer: str
    detect: Seconds = 2.0
    automatic: bool = True
    preferred: str | None = None
    arbiter: bool = False
    """Whether a node goes on alone only as the heir that the arbiter names."""
    restart_window: Seconds = 86_400.0
    """How long a node on which an application gave up is not a place to fail over to."""
    former_primary_wins: bool = False
    """Whether a split brain ends by itself, where the records tell who was primary before."""


@dataclass(frozen=True, slots=True)
class Succession:
    """What the arbiter told of who may go on alone. A generation has one heir at most."""

    generation: str = ""
    """What is told here is about this one."""
    heir: str = ""
    asked: bool = False
    """A question is under way; no second one until it is answered."""
    retry_at: Seconds = 0.0
    trouble: str = ""
    """Why the arbiter did not answer last time."""
    to_disclaim: bool = False
    """Both nodes are in step again: what this one may have claimed is to be given back."""


class Gate(StrEnum):
    """`ha-promote.service`."""

    CLOSED = "closed"
    ASKING = "asking"
    OPEN = "open"


class Contact(StrEnum):
    """What is heard of the peer. UNKNOWN and SILENT differ: nobody may be declared
    silent before `detect` has passed."""

    UNKNOWN = "unknown"
    FELT = "felt"
    HEARD = "heard"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class State:
    """One node. Built by the shell, changed by `step` only.

    `seed` is random, drawn by the shell at each start; generation ids derive from it,
    so that the core needs no randomness of its own.
    """

    policy: Policy
    seed: str
    now: Seconds = 0.0
    phase: Phase = Phase.WAITING
    since: Seconds = 0.0
    reason: str = "started"
    gate: Gate = Gate.CLOSED
    replica: ReplicaChanged | None = None
    held_since: Seconds = 0.0
    saw_synced: bool = False
    """This core itself saw the stream synced since it started."""
    replica_gone: Seconds = 0.0
    replica_since: Seconds = 0.0
    """When the replicator came: before that, nobody here listened to the peer's."""
    pending: bool = False
    """A command to the replicator is under way; no second one until it is answered."""
    contact: Contact = Contact.UNKNOWN
    peer: Status | None = None
    witness: Witness = Witness.NONE
    probe: Probe = Probe.NONE
    succession: Succession = Succession()
    maintenance: Maintenance = field(default_factory=Maintenance)
    yields_branch: bool = False
    """An administrator wants this node's diverged data to lose."""
    forced: bool = False
    """The promotion under way was forced: it may be with stale data."""
    gave_up_at: Seconds | None = None
    """When an application last gave up here, unless this node was primary again since."""
    not_ready: str = ""
    """What a checker that runs in both roles found wrong with this node."""
    joins: bool = False
    """This node joined when the core started; it was not only its operator that started anew."""
    returned_at: Seconds | None = None
    """When this standby came back into step with a primary that had gone on without it."""
    yields_until: Seconds = 0.0
    outdated_for: str = ""
    outdating: str = ""
    begun: int = 0
    """Counts the generations begun since the start, and the times of coming into step."""
    record: DataRecord = field(default_factory=DataRecord)
    """The last record that the replicator told."""
    published: Status | None = None

    @property
    def stream(self) -> Stream:
        return self.replica.stream if self.replica else Stream.DISCONNECTED

    @property
    def role(self) -> Role | None:
        return self.replica.role if self.replica else None

    @property
    def yields(self) -> bool:
        return self.now < self.yields_until

    @property
    def healthy(self) -> bool:
        """Whether this is a place to hand over to. Never asked when the peer is dead."""
        return not self.not_ready and not self.gave_up

    @property
    def gave_up(self) -> bool:
        """Whether an application failed too often here, within its window."""
        gave_up_at = self.gave_up_at
        return gave_up_at is not None and self.now - gave_up_at < self.policy.restart_window

    @property
    def heir(self) -> str:
        """Whom the arbiter named for the present generation, `""` while that is not known."""
        current = self.succession.generation == self.record.generation
        return self.succession.heir if current else ""

    @property
    def held_for(self) -> Seconds:
        """How long the writes of this primary have been waiting; below 0 if they do not."""
        return self.now - self.held_since if self.stream is Stream.HELD else -1.0

    @property
    def next_generation(self) -> str:
        """The id of the generation that this node begins next, 16 hexadecimal digits."""
        text = f"{self.policy.me} {self.seed} {self.begun}"
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    @property
    def peer_heard(self) -> Status | None:
        """The peer's status while it is heard, else None."""
        return self.peer if self.contact is Contact.HEARD else None

    @property
    def peer_unreachable(self) -> bool:
        """Whether nothing was heard of the peer on any path for `detect`. A stream that was
        closed (the peer's replicator restarts) counts as heard at that moment."""
        return (
            self.contact is Contact.SILENT
            and self.stream is not Stream.SYNCED
            and (self.replica is None or self.now - self.replica.heard >= self.policy.detect)
        )

    @property
    def promotable(self) -> bool:
        """Whether this node could take the role at once and lose nothing: its copy is
        current, and it has watched ever since it was told so. Who was not watching may have
        missed that it was the isolated one, and was left behind."""
        complete = self.stream in (Stream.SYNCED, Stream.LOST, Stream.HANDED_OVER)
        return self.record.current and complete and self.saw_synced


class Shown(StrEnum):
    """The states that administrators know."""

    STOP = "STOP"
    WAIT = "WAIT"
    TRANSITION = "TRANSITION"
    ALONE = "ALONE"
    PRIM = "PRIM"
    SECOND = "SECOND"


def shown(state: State) -> tuple[Shown, str]:
    """The state that an administrator sees, and the transition that is under way or `""`."""
    return shown_as(state.phase, state.stream)


def shown_as(phase: Phase, stream: Stream) -> tuple[Shown, str]:
    """The same for a node of which only this is known, as the peer."""
    match phase:
        case Phase.LEAVING:
            return Shown.STOP, ""
        case Phase.PROMOTING:
            return Shown.TRANSITION, "promoting"
        case Phase.DEMOTING:
            return Shown.TRANSITION, "demoting"
        case Phase.PRIMARY:
            return (Shown.PRIM if stream is Stream.SYNCED else Shown.ALONE), ""
        case Phase.SECOND:
            return Shown.SECOND, ""
        case Phase.WAITING if stream is Stream.RESYNC:
            return Shown.TRANSITION, "resynchronising"
        case _:
            return Shown.WAIT, ""
