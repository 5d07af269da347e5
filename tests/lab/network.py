# SPDX-License-Identifier: Apache-2.0
"""The lab's networks: two bridges in a namespace of their own, and cables to them.

    lan     10.0.0.0/24   node-a .1, node-b .2, client .50, witness (and gateway) .254
    direct  10.0.1.0/24   node-a .1, node-b .2

A cable is a veth pair. Its outer end, the socket, is on a bridge in the
*segment*, which no node can reach into; that is where cables are cut. Nothing
here touches the network of the machine.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Literal

from .command import LabError, run
from .ledger import Ledger
from .place import LINKS, PORTS, Place, Port, ports_of

Direction = Literal["in", "out", "both"]

SWITCH = """
table bridge lab {
  chain cut { type filter hook forward priority 0; policy accept; }
}
"""


class Network:
    """All cables of one lab."""

    def __init__(self, place: Place, ledger: Ledger) -> None:
        self.place = place
        self.ledger = ledger
        self.segment = place.namespace("segment")

    def up(self) -> None:
        """Makes the bridges, and plugs in everything that is not a node."""
        self._namespace(self.segment)
        for link in LINKS:
            self._ip(self.segment, f"link add {link} type bridge mcast_snooping 0")
            self._ip(self.segment, f"link set {link} up")
        run("ip", "netns", "exec", self.segment, "nft", "-f", "-", stdin=SWITCH)
        for part in ("client", "witness"):
            self.plug(part)

    def plug(self, part: str) -> None:
        """Gives `part` a fresh network stack, with all its devices up and addressed."""
        namespace = self.place.namespace(part)
        self._namespace(namespace)
        self._ip(namespace, "link set lo up")
        for port in ports_of(part):
            self._ip(
                self.segment,
                f"link add {port.socket} type veth "
                f"peer name {port.device} netns {namespace} address {port.mac}",
                f"link set {port.socket} master {port.link} up",
            )
            self._ip(
                namespace,
                f"address add {port.address} dev {port.device}",
                f"link set {port.device} up",
            )
        if part != "witness":
            self._ip(namespace, "route add default via 10.0.0.254")

    def unplug(self, part: str) -> None:
        """Takes away the network stack of `part`, with every address and connection in it."""
        for port in ports_of(part):
            run("ip", "-n", self.segment, "link", "del", port.socket, check=False)
        if Path("/run/netns", self.place.namespace(part)).exists():
            run("ip", "netns", "del", self.place.namespace(part))

    def cut(self, part: str, link: str | None = None, direction: Direction = "both") -> None:
        """Cuts the cables of `part`, or the one of `link`.

        With `direction` "both" the plug is pulled: the device loses its carrier.
        "in" and "out", as the part sees it, drop every frame of that direction,
        ARP too, while the carrier stays.
        """
        ports = self._some(part, link)
        match direction:
            case "both":
                self._ip(self.segment, *(f"link set {p.socket} down" for p in ports))
            case "in":
                self.drop(*(f'oifname "{p.socket}"' for p in ports))
            case "out":
                self.drop(*(f'iifname "{p.socket}"' for p in ports))

    def drop(self, *matches: str) -> None:
        """Drops frames that cross a bridge and match, in nftables' words for the bridge family.

        `iifname "lan-a" numgen random mod 100 < 5` loses a twentieth of what node-a
        sends; `iifname "lan-a" tcp dport 7411` cuts one port.
        """
        rules = "".join(f"add rule bridge lab cut {match} drop\n" for match in matches)
        run("ip", "netns", "exec", self.segment, "nft", "-f", "-", stdin=rules)

    def heal(self) -> None:
        """Mends all that `cut` and `drop` did."""
        run("ip", "netns", "exec", self.segment, "nft", "flush", "chain", "bridge", "lab", "cut")
        shown = run("ip", "-n", self.segment, "-oneline", "link", "show").stdout
        there = [p for p in PORTS if f" {p.socket}@" in shown]
        self._ip(self.segment, *(f"link set {p.socket} up" for p in there))

    def cuts(self) -> list[str]:
        """What is cut at the moment, one line each."""
        shown = run("ip", "-n", self.segment, "-oneline", "link", "show").stdout.splitlines()
        down = [line.split(": ")[1].split("@")[0] for line in shown if "state DOWN" in line]
        listed = run("ip", "netns", "exec", self.segment, "nft", "list", "table", "bridge", "lab")
        rules = [line.strip() for line in listed.stdout.splitlines() if line.endswith("drop")]
        return [f"{socket} is unplugged" for socket in down if "-" in socket] + rules

    def _some(self, part: str, link: str | None) -> tuple[Port, ...]:
        if ports := ports_of(part, link):
            return ports
        raise LabError(f"{part} has no cable to {link}", "tests/lab/place.py")

    def _namespace(self, name: str) -> None:
        self.ledger.note("namespaces", name)
        run("ip", "netns", "add", name)

    def _ip(self, namespace: str, *commands: str) -> None:
        for command in commands:
            run("ip", "-n", namespace, *shlex.split(command))
