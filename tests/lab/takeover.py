# SPDX-License-Identifier: Apache-2.0
"""One takeover: the power of the primary is cut, and every clock that matters is read."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

from .bus import BusRecord, first
from .cluster import Pair
from .customer import Customer
from .node import Node
from .waiting import until


@dataclass(frozen=True, slots=True)
class Takeover:
    """Times in seconds of the real-time clock; `lost` counts acknowledged increments."""

    died: str
    survivor: str
    cut: float
    detected: float
    """The survivor's heartbeat declared the peer silent, or its operator moved before that."""
    vip: float
    """The client heard the survivor announce the virtual IP."""
    writable: float
    """The survivor's replicator took on the primary role."""
    first_write: float
    lost: int

    @property
    def detection(self) -> float:
        return self.detected - self.cut

    @property
    def takeover(self) -> float:
        """From detection until both the VIP is there and the data is writable."""
        return max(self.vip, self.writable) - self.detected

    @property
    def outage(self) -> float:
        return self.first_write - self.cut

    def window(self) -> tuple[float, float]:
        """The part of the timeline that is worth a closer look."""
        return self.cut - 0.15 * self.outage, self.first_write + 0.2 * self.outage

    def moments(self) -> list[tuple[float, str]]:
        named = [
            (self.detected, "detected"),
            (self.vip, "VIP moved"),
            (self.writable, "data writable"),
            (self.first_write, f"first write on {self.survivor}"),
        ]
        return [(self.cut, "power cut"), *sorted(named)]

    def as_dict(self) -> dict[str, object]:
        spans = {"detection": self.detection, "takeover": self.takeover, "outage": self.outage}
        return asdict(self) | {f"{k}_seconds": round(v, 4) for k, v in spans.items()}

    def __str__(self) -> str:
        def after(moment: float) -> str:
            return f"{moment - self.cut:.3f} s"

        return (
            f"{self.died} → {self.survivor}: detected after {after(self.detected)}, "
            f"VIP after {after(self.vip)}, writable after {after(self.writable)}, "
            f"first write after {after(self.first_write)}, lost {self.lost}"
        )


def cut_the_primary(
    pair: Pair, client: Customer, record: BusRecord, within: float = 30.0
) -> Takeover:
    """Cuts the power of the primary under a counting client, and waits for the first answer
    of the survivor. The dead node stays dead."""
    primary = pair.primary
    survivor = pair.lab.other(primary)
    lost_before = client.seen().lost
    cut = time.time()
    primary.power_cut()
    # Answers that were under way when the power went are no answers of the survivor.
    vip = wait_vip(client, survivor, cut, within)
    first_write = client.wait_ack_after(vip, within)
    signals = record.signals()
    moved = [
        t
        for member in ("PeerSilent", "Transitioned")
        if (t := first(signals, survivor.name, cut, member=member)) is not None
    ]
    writable = first(signals, survivor.name, cut, role="primary")
    return Takeover(
        died=primary.name,
        survivor=survivor.name,
        cut=cut,
        detected=min(moved, default=vip),
        vip=vip,
        writable=vip if writable is None else writable,
        first_write=first_write,
        lost=client.seen().lost - lost_before,
    )


def wait_vip(client: Customer, node: Node, after: float, within: float) -> float:
    """When the client first heard that `node` has the VIP, after a moment."""
    return until(
        lambda: client.seen().vip_at(node.name, after) or 0.0,
        f"the virtual IP at {node.name}",
        within=within,
        hint=lambda: f"journalctl in {node.name}; VIP moves seen: {client.seen().moves}",
    )


def bring_back(pair: Pair, node: Node, record: BusRecord | None = None) -> float:
    """Boots a dead node and waits for PRIM and SECOND; returns the seconds that it took."""
    begin = time.monotonic()
    node.boot()
    if record:
        record.listen(node)
    pair.wait({node.name: "SECOND", pair.lab.other(node).name: "PRIM"}, within=60)
    return time.monotonic() - begin
