# SPDX-License-Identifier: Apache-2.0
"""What the core wants done. Names are imperative; answers return as events."""

from __future__ import annotations

from dataclasses import dataclass

from haoperator.core.status import Maintenance, Status


@dataclass(frozen=True, slots=True)
class Publish:
    """Tell the peer, at once and with every heartbeat from now on."""

    status: Status


@dataclass(frozen=True, slots=True)
class StartPrimary:
    """Start `ha-primary.target`; its gate will ask (`PromotionAsked`)."""


@dataclass(frozen=True, slots=True)
class StartSecondary:
    """Start `ha-secondary.target`, which stops all that is primary, in order."""


@dataclass(frozen=True, slots=True)
class OpenGate:
    """Answer `ha-promote.service`: this node is primary and its data is writable."""


@dataclass(frozen=True, slots=True)
class RefuseGate:
    """Answer `ha-promote.service` with the reason why not."""

    reason: str


@dataclass(frozen=True, slots=True)
class BecomePrimary:
    """To the replicator. `""` keeps the generation: the peer handed over. Unless forced, it
    refuses if the data is a mixture or a primary is connected: much may have happened since
    this was decided."""

    generation: str
    force: bool = False


@dataclass(frozen=True, slots=True)
class BecomeSecondary:
    """To the replicator: make the data read-only."""


@dataclass(frozen=True, slots=True)
class ContinueAlone:
    """To the replicator: begin this generation durably, then let waiting writes go on."""

    generation: str


@dataclass(frozen=True, slots=True)
class MarkOutdated:
    """To the replicator: store durably that the primary goes on without this node."""


@dataclass(frozen=True, slots=True)
class Claim:
    """To the arbiter: name this node heir of the generation, unless it has one already.
    Answered by `HeirTold` or `ArbiterFailed`."""

    generation: str


@dataclass(frozen=True, slots=True)
class Disclaim:
    """To the arbiter: if this node is heir of the generation, nobody is any more. Answered
    like `Claim`."""

    generation: str


@dataclass(frozen=True, slots=True)
class KeepMaintenance:
    """Store durably whether the cluster moves anything by itself."""

    maintenance: Maintenance


@dataclass(frozen=True, slots=True)
class YieldBranch:
    """To the replicator: store durably that this diverged branch of the data gives way to the
    peer's, which has this generation. It is kept aside before any of it is overwritten."""

    to: str


@dataclass(frozen=True, slots=True)
class RestartApp:
    """Try the unit again here, because nobody else can take it."""

    unit: str


@dataclass(frozen=True, slots=True)
class Accept:
    """Answer the command that this step was for: it is under way."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answer the command that this step was for: no, because."""

    reason: str


Effect = (
    Publish
    | StartPrimary
    | StartSecondary
    | OpenGate
    | RefuseGate
    | BecomePrimary
    | BecomeSecondary
    | ContinueAlone
    | MarkOutdated
    | YieldBranch
    | Claim
    | Disclaim
    | KeepMaintenance
    | RestartApp
    | Accept
    | Refuse
)
