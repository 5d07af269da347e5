# SPDX-License-Identifier: Apache-2.0
"""What a node publishes to its peer with every heartbeat: levels, not edges."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum

from haoperator.core.record import DataRecord


class Phase(StrEnum):
    """Where a node is in its life cycle."""

    WAITING = "waiting"
    """Takes part, but its data is not known to be current, or its role is not decided."""
    SECOND = "second"
    """Standby, holds all that was acknowledged."""
    PROMOTING = "promoting"
    PRIMARY = "primary"
    DEMOTING = "demoting"
    LEAVING = "leaving"
    """Announced departure: does not take the role, whatever happens."""

    @property
    def holds_role(self) -> bool:
        """Whether the node is, is becoming, or is still primary."""
        return self in (Phase.PROMOTING, Phase.PRIMARY, Phase.DEMOTING)


class Stream(StrEnum):
    """The replication stream, as the replicator tells it (docs/architecture.md, section 4)."""

    DISCONNECTED = "disconnected"
    RESYNC = "resync"
    SYNCED = "synced"
    LOST = "lost"
    HANDED_OVER = "handed-over"
    ALONE = "alone"
    HELD = "held"


class Role(StrEnum):
    """What the replicator lets happen to the data."""

    SECONDARY = "secondary"
    PRIMARY = "primary"
    HELD = "held"


@dataclass(frozen=True, slots=True, order=True)
class Maintenance:
    """Whether an administrator forbade the cluster to move anything by itself. Both nodes go
    by the greater one of theirs: who commands it last counts one up."""

    count: int = 0
    on: bool = False

    @classmethod
    def from_raw(cls, raw: object) -> Maintenance:
        """From what JSON made of it. Raises ValueError for anything else."""
        if not isinstance(raw, dict):
            raise ValueError("maintenance is a JSON object")
        count, on = raw.get("count"), raw.get("on")
        if type(count) is not int or type(on) is not bool:
            raise ValueError("maintenance has a count and says whether it is on")
        return cls(count, on)


@dataclass(frozen=True, slots=True)
class Status:
    """One node as its peer sees it. A field that says "asks" is a wish, repeated until met."""

    node: str
    phase: Phase = Phase.WAITING
    record: DataRecord = field(default_factory=DataRecord)
    stream: Stream = Stream.DISCONNECTED
    promotable: bool = False
    """This node could take the role at once, without losing anything."""
    able: bool = True
    """Whether the node's replicator runs: without it, it can't be primary."""
    healthy: bool = True
    """False after an application gave up here, or while a checker finds that this node lacks
    what a takeover needs: not a place to hand over to."""
    would_begin: str = ""
    """Of a primary in step with its peer: the generation that it would begin without it. A peer
    that gives way by itself answers to this; never the same for two times of being in step."""
    asks_outdate: str = ""
    """The primary asks its peer to mark itself outdated, so that it may go on alone:
    the generation that it will begin, which makes the answer the answer to this."""
    outdated_for: str = ""
    """The standby's answer: marked, durably, and its end of the stream closed."""
    asks_role: bool = False
    """A standby asks the primary to hand over."""
    yields: bool = False
    """This node gave the role away on purpose and wants the peer to take it."""
    defers: bool = False
    """This node does not hold the role, and by all that it knows the peer should."""
    maintenance: Maintenance = Maintenance()

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Status:
        """Raises ValueError for anything but a status. Unknown fields, of a newer
        version, are passed over; missing ones have their default."""
        raw = json.loads(text)
        if not isinstance(raw, dict) or not isinstance(raw.get("node"), str):
            raise ValueError("a status is a JSON object that names its node")
        known = {f.name for f in fields(cls)}
        values = {key: value for key, value in raw.items() if key in known}
        values["phase"] = Phase(values.get("phase", Phase.WAITING))
        values["stream"] = Stream(values.get("stream", Stream.DISCONNECTED))
        if "record" in values:
            values["record"] = DataRecord.from_json(json.dumps(values["record"]))
        if "maintenance" in values:
            values["maintenance"] = Maintenance.from_raw(values["maintenance"])
        return cls(**values)
