# SPDX-License-Identifier: Apache-2.0
"""What faults are made on: the pair, with the roles that its nodes had when the play began."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from .appends import Appends
from .cluster import Pair
from .customer import Customer
from .node import Node
from .place import PORTS
from .waiting import until

MOVED = re.compile(r"(\w+) -> (\w+): (.*)")
SHOWN = ("STOP", "WAIT", "ALONE", "PRIM", "SECOND")


class Side(StrEnum):
    """A node by the role that it had before the fault."""

    PRIMARY = "primary"
    STANDBY = "standby"


@dataclass(frozen=True, slots=True)
class Move:
    """A node told a new state; seconds of CLOCK_MONOTONIC."""

    at: float
    side: Side
    state: str
    reason: str


@dataclass(slots=True)
class Stage:
    """One play. Faults note here what has to be undone, beside cut cables and lost power."""

    pair: Pair
    primary: Node
    standby: Node
    client: Customer
    appends: Appends
    undo: list[object] = field(default_factory=list)

    def node(self, side: Side) -> Node:
        return self.primary if side is Side.PRIMARY else self.standby

    @property
    def sides(self) -> tuple[tuple[Side, Node], ...]:
        return (Side.PRIMARY, self.primary), (Side.STANDBY, self.standby)

    def boot(self, *nodes: Node) -> None:
        """Gives power, and lets the writer of each node begin again."""

        def one(node: Node) -> None:
            if node in nodes:
                node.boot()
                self.appends.watch(node)

        self.pair.lab.on_both(one)

    def mend(self) -> None:
        """Undoes what the faults did: cables, power, and what they noted."""
        self.pair.lab.network.heal()
        for undo in reversed(self.undo):
            assert callable(undo)
            undo()
        self.undo.clear()
        self.boot(*(node for node in self.pair.nodes if not node.powered))

    def stream_to(self, link: str) -> None:
        """Returns when the replication stream runs over `link`: it stays where it last went."""
        if self.stream_link() == link:
            return
        sockets = ", ".join(f'"{port.socket}"' for port in PORTS if port.link != link)
        for end in ("sport", "dport"):
            self.pair.lab.network.drop(f"iifname {{ {sockets} }} tcp {end} 7411")
        until(
            lambda: self.stream_link() == link and self.pair.healthy(),
            f"the stream over {link}",
            within=30,
            hint=self.pair.explain,
        )
        self.pair.lab.network.heal()

    def stream_link(self) -> str:
        """Over which link the replication stream runs, `""` while it does not."""
        ss = ("ss", "-Htn", "state", "established", "( sport = :7411 or dport = :7411 )")
        shown = self.primary.exec(*ss).stdout
        links = {port.link for port in PORTS if f" {port.address.partition('/')[0]}:" in shown}
        return links.pop() if len(links) == 1 else ""

    def states(self) -> tuple[str, str]:
        """What the former primary and the former standby show at the moment: STOP without an
        operator, "off" without power."""
        return self.pair.state(self.primary) or "STOP", self.pair.state(self.standby) or "STOP"

    def moves(self, since: float) -> list[Move]:
        """The states that the nodes told in their journals, in order of time. A journal has
        CLOCK_MONOTONIC, and outlives its node, the bus, and a clock that is set."""
        return sorted(
            (move for side, node in self.sides for move in moves_of(side, node, since)),
            key=lambda move: move.at,
        )


def moves_of(side: Side, node: Node, since: float) -> Iterator[Move]:
    fields = ("-o", "json", "--output-fields=MESSAGE", "-n", "400", "-u", "haoperator.service")
    for line in node.journal(*fields).splitlines():
        entry = json.loads(line)
        at = int(entry["__MONOTONIC_TIMESTAMP"]) / 1e6
        message = entry.get("MESSAGE", "")
        # A message with control characters comes as a list of bytes; ours have none.
        moved = MOVED.match(message) if isinstance(message, str) else None
        if moved and since <= at <= time.monotonic() and moved[2] in SHOWN:
            yield Move(at, side, moved[2], moved[3])
