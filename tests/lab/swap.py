# SPDX-License-Identifier: Apache-2.0
"""One swap under a counting client, asked for in any of the ways that there are."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from .bus import BusRecord, first
from .cluster import Pair
from .customer import Customer
from .node import Node
from .takeover import wait_vip


@dataclass(frozen=True, slots=True)
class Swap:
    """Times in seconds of the real-time clock; `lost` counts acknowledged increments."""

    to: str
    asked: float
    command_seconds: float
    last_write: float
    vip: float
    writable: float
    first_write: float
    lost: int

    @property
    def interruption(self) -> float:
        """From the last answer of the old primary to the first of the new one."""
        return self.first_write - self.last_write

    def window(self) -> tuple[float, float]:
        """The part of the timeline that is worth a closer look."""
        whole = self.first_write - self.asked
        return self.asked - 0.2 * whole, self.first_write + 0.25 * whole

    def moments(self) -> list[tuple[float, str]]:
        named = [
            (self.last_write, "last write on the old primary"),
            (self.writable, "data writable"),
            (self.vip, "VIP moved"),
            (self.first_write, f"first write on {self.to}"),
        ]
        return [(self.asked, "swap asked for"), *sorted(named)]

    def as_dict(self) -> dict[str, object]:
        return asdict(self) | {"interruption_seconds": round(self.interruption, 4)}


def swap_by(
    ask: Callable[[], object],
    pair: Pair,
    to: Node,
    client: Customer,
    record: BusRecord,
    within: float = 30.0,
) -> Swap:
    """Asks for a swap, and waits until `to` is PRIM, its peer SECOND and the client served."""
    lost_before = client.seen().lost
    asked = time.time()
    ask()
    returned = time.time()
    vip = wait_vip(client, to, asked, within)
    client.wait_ack_after(vip, within)
    pair.wait({to.name: "PRIM", pair.lab.other(to).name: "SECOND"}, within)
    client.wait_acks(20)
    last_write, first_write = client.seen().longest_gap(asked, vip)
    writable = first(record.signals(), to.name, asked, role="primary")
    return Swap(
        to=to.name,
        asked=asked,
        command_seconds=returned - asked,
        last_write=last_write,
        vip=vip,
        writable=vip if writable is None else writable,
        first_write=first_write,
        lost=client.seen().lost - lost_before,
    )


def swap_by_isolate(pair: Pair, to: Node, client: Customer, record: BusRecord) -> Swap:
    """`systemctl isolate ha-primary.target` on the standby."""
    return swap_by(
        lambda: to.exec("systemctl", "isolate", "ha-primary.target", timeout=90),
        pair,
        to,
        client,
        record,
    )


def swap_by_hactl(pair: Pair, on: Node, client: Customer, record: BusRecord) -> Swap:
    """`hactl swap` on either node."""
    to = pair.standby
    return swap_by(lambda: on.exec("hactl", "swap", timeout=90), pair, to, client, record)
