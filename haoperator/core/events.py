# SPDX-License-Identifier: Apache-2.0
"""What can happen to a node. Names are past tense; nothing here is a question."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from haoperator.core.record import DataRecord
from haoperator.core.status import Role, Status, Stream


class Witness(StrEnum):
    """Whether a third address answers: "I am not the isolated one"."""

    NONE = "none"
    REACHABLE = "reachable"
    UNREACHABLE = "unreachable"


class Probe(StrEnum):
    """Whether another machine answers for a virtual IP on the client network."""

    NONE = "none"
    """Not asked, or this node holds them itself."""
    ANSWERED = "answered"
    UNANSWERED = "unanswered"


@dataclass(frozen=True, slots=True)
class TimePassed:
    """Nothing but time. The clock of every event is `State.now`, monotonic seconds."""


@dataclass(frozen=True, slots=True)
class PeerHeard:
    """The peer's status, new or heard again after a silence."""

    status: Status


@dataclass(frozen=True, slots=True)
class PeerFelt:
    """The peer's machine is heard, but its operator has not published anything yet."""


@dataclass(frozen=True, slots=True)
class PeerLost:
    """All heartbeat links were silent for `detect`."""


@dataclass(frozen=True, slots=True)
class WitnessChanged:
    witness: Witness


@dataclass(frozen=True, slots=True)
class VipProbed:
    """What the probe of the virtual IPs finds now; it is at most `detect / 2` old."""

    probe: Probe


@dataclass(frozen=True, slots=True)
class HeirTold:
    """The arbiter's answer: who may go on alone from `generation`, `""` for nobody yet."""

    generation: str
    heir: str


@dataclass(frozen=True, slots=True)
class ArbiterFailed:
    """The arbiter did not answer."""

    reason: str


@dataclass(frozen=True, slots=True)
class ReplicaChanged:
    """The replicator's levels; it announces every change."""

    role: Role
    stream: Stream
    record: DataRecord
    heard: float = 0.0
    """Monotonic seconds at which the peer was last heard on the stream, 0 for never."""


@dataclass(frozen=True, slots=True)
class ReplicaGone:
    """The replicator left the bus: it is restarting, or dead."""


@dataclass(frozen=True, slots=True)
class ReplicaFailed:
    """A command to the replicator failed."""

    reason: str


@dataclass(frozen=True, slots=True)
class ReplicaDone:
    """The last command to the replicator succeeded; `ReplicaChanged` came before it."""


@dataclass(frozen=True, slots=True)
class PromotionAsked:
    """`ha-promote.service` starts and asks whether the gate may open."""


@dataclass(frozen=True, slots=True)
class GateChanged:
    """`ha-promote.service` became active or stopped being so, whoever did it."""

    active: bool


@dataclass(frozen=True, slots=True)
class AppGaveUp:
    """An application failed more often than `max_restarts` in `restart_window`, or a
    checker whose `on_failure` is "failover" failed."""

    unit: str


@dataclass(frozen=True, slots=True)
class ReadinessChanged:
    """What the checkers that run in both roles say of this node."""

    problem: str
    """Why it is no place to hand over to, `""` if it is one."""


@dataclass(frozen=True, slots=True)
class SwapCommanded:
    pass


@dataclass(frozen=True, slots=True)
class PromoteCommanded:
    force: bool = False


@dataclass(frozen=True, slots=True)
class MaintenanceCommanded:
    """From now on the cluster moves nothing by itself, or does so again."""

    on: bool


@dataclass(frozen=True, slots=True)
class YieldCommanded:
    """After a split brain: the data of this node shall lose."""


@dataclass(frozen=True, slots=True)
class LeaveCommanded:
    """This node leaves the cluster in order."""


Event = (
    TimePassed
    | PeerHeard
    | PeerFelt
    | PeerLost
    | WitnessChanged
    | VipProbed
    | HeirTold
    | ArbiterFailed
    | ReplicaChanged
    | ReplicaGone
    | ReplicaFailed
    | ReplicaDone
    | PromotionAsked
    | GateChanged
    | AppGaveUp
    | ReadinessChanged
    | SwapCommanded
    | PromoteCommanded
    | MaintenanceCommanded
    | YieldCommanded
    | LeaveCommanded
)
