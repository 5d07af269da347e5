# SPDX-License-Identifier: Apache-2.0
"""The paths between the nodes, each of which can be cut alone and in one direction.

Heartbeats and the replication stream share the cables, so they are told apart by their
ports. The client network and the direct one are a cable each; the client network leads to
the witness too.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .network import Direction, Network
from .node import Node
from .place import ports_of

WITNESS = "10.0.0.254"


class Path(StrEnum):
    HEARTBEAT = "heartbeat"
    REPLICATION = "replication"
    CLIENTS = "client network"
    DIRECT = "direct cable"
    WITNESS = "witness"


CABLES = {Path.CLIENTS: "lan", Path.DIRECT: "direct"}


@dataclass(frozen=True, slots=True)
class Cut:
    """A path of one node, cut in both directions or in one, as that node sees it."""

    path: Path
    direction: Direction = "both"

    def make(self, network: Network, node: Node) -> None:
        if cable := CABLES.get(self.path):
            network.cut(node.name, cable, self.direction)
        else:
            network.drop(*self.matches(node))

    def matches(self, node: Node) -> list[str]:
        """The frames that do not pass, in nftables' words for the bridge family."""
        sockets = ", ".join(f'"{port.socket}"' for port in ports_of(node.name))
        leaving, coming = f"iifname {{ {sockets} }}", f"oifname {{ {sockets} }}"
        ways = {"out": [leaving], "in": [coming], "both": [leaving, coming]}[self.direction]
        match self.path:
            case Path.HEARTBEAT:
                return [f"{way} udp dport 7410" for way in ways]
            case Path.REPLICATION:
                return [f"{way} tcp {end} 7411" for way in ways for end in ("sport", "dport")]
            case _:
                ends = {leaving: "daddr", coming: "saddr"}
                return [f"{way} ip {ends[way]} {WITNESS}" for way in ways]
