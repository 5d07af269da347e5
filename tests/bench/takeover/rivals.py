# SPDX-License-Identifier: Apache-2.0
"""Who is compared: how each is configured on the two nodes of the lab, started and stopped.

Each of them has one thing to look after, the virtual IP of the lab; haoperator cannot do
without a replicated directory, which has to be writable on the survivor before it takes
the address. Nothing is set that is not named here: what is not said is the default of
Debian's package.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Protocol

from tests.lab.cluster import DATA, Pair, package
from tests.lab.customer import VIP
from tests.lab.lab import Lab
from tests.lab.node import Node
from tests.lab.waiting import until


class Rival(Protocol):
    """One way to keep the virtual IP alive, in one timing."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str: ...

    def start(self, node: Node) -> None:
        """Lets `node` take part, with this rival's configuration."""

    def stop(self, node: Node) -> None:
        """Nothing of it runs on `node` afterwards."""

    def settled(self) -> Node | None:
        """Who has the virtual IP, once both nodes take part and nothing is on its way."""


HAOPERATOR = f"""\
[cluster]
name = "shop"

[node.node-a]
[node.node-b]

[link.direct]
node-a = "10.0.1.1"
node-b = "10.0.1.2"

[link.lan]
node-a = "10.0.0.1"
node-b = "10.0.0.2"

[vip.front]
address = "{VIP}/24"
interface = "eth0"

[replicate.data]
path = "{DATA}"

[witness]
ping = ["10.0.0.254"]
"""
FAST_DETECT = 0.3
FAST = '\n[timing]\nheartbeat = "50ms"\ndetect = "300ms"\n'


@dataclass(frozen=True, slots=True)
class Haoperator:
    """With both links as heartbeat links, a witness, and an empty replicated directory."""

    pair: Pair
    name: str
    title: str
    timing: str = ""

    def start(self, node: Node) -> None:
        node.put("/etc/haoperator/cluster.toml", HAOPERATOR + self.timing)
        node.exec("systemctl", "daemon-reload")
        node.exec("systemctl", "start", "ha-cluster.target")

    def stop(self, node: Node) -> None:
        node.exec("systemctl", "stop", "ha-cluster.target", timeout=90)

    def settled(self) -> Node | None:
        return self.pair.primary if self.pair.healthy() else None


# Both nodes have the default priority, and none takes the address back from the other.
KEEPALIVED = """\
vrrp_instance front {{
    state BACKUP
    nopreempt
    interface eth0
    virtual_router_id 51
    {timing}
    virtual_ipaddress {{
        {vip}/24
    }}
}}
"""
FASTEST_ADVERT = 0.03


@dataclass(frozen=True, slots=True)
class Keepalived:
    lab: Lab
    name: str
    title: str
    timing: str = ""

    def start(self, node: Node) -> None:
        text = KEEPALIVED.format(timing=self.timing, vip=VIP)
        node.put("/etc/keepalived/keepalived.conf", text)
        node.exec("systemctl", "start", "keepalived")

    def stop(self, node: Node) -> None:
        node.exec("systemctl", "stop", "keepalived")

    def settled(self) -> Node | None:
        holders = []
        for node in self.lab.nodes.values():
            if node.exec("systemctl", "is-active", "keepalived", check=False).returncode:
                return None
            shown = node.exec("ip", "-4", "address", "show", "dev", "eth0").stdout
            if f" {VIP}/" in shown:
                holders.append(node)
        return holders[0] if len(holders) == 1 else None


COROSYNC = """\
totem {
    version: 2
    cluster_name: shop
}
nodelist {
    node {
        name: node-a
        nodeid: 1
        ring0_addr: 10.0.0.1
        ring1_addr: 10.0.1.1
    }
    node {
        name: node-b
        nodeid: 2
        ring0_addr: 10.0.0.2
        ring1_addr: 10.0.1.2
    }
}
quorum {
    provider: corosync_votequorum
    two_node: 1
}
logging {
    to_syslog: yes
}
"""
RESOURCES = f"""\
property stonith-enabled=false no-quorum-policy=ignore
primitive front ocf:heartbeat:IPaddr2 params ip={VIP} cidr_netmask=24 \
    op monitor interval=10s timeout=20s
"""


@dataclass(frozen=True, slots=True)
class Pacemaker:
    """Over two rings, without fencing: the worst is that both have the address."""

    lab: Lab
    name: str
    title: str

    def start(self, node: Node) -> None:
        node.put("/etc/corosync/corosync.conf", COROSYNC)
        node.exec("systemctl", "start", "corosync", "pacemaker")

    def stop(self, node: Node) -> None:
        node.exec("systemctl", "stop", "pacemaker", "corosync", timeout=90)

    def settled(self) -> Node | None:
        holder = self.holder() if self.online() else None
        if holder is None:
            return None
        waited = self.lab.a.exec("crm_resource", "--wait", "--timeout=10", check=False)
        return holder if waited.returncode == 0 and self.holder() is holder else None

    def online(self) -> bool:
        """Whether both nodes are full members."""
        nodes = self.monitor().findall("nodes/node")
        whole = [n for n in nodes if n.get("online") == "true" and n.get("pending") == "false"]
        return len(whole) == len(self.lab.nodes)

    def holder(self) -> Node | None:
        """Where the cluster believes the address to be."""
        started = self.monitor().findall("resources/resource[@role='Started']/node")
        return self.lab.node(str(started[0].get("name"))) if len(started) == 1 else None

    def monitor(self) -> ET.Element:
        """`crm_mon` of node-a; empty while its cluster does not run."""
        shown = self.lab.a.exec("crm_mon", "-1", "--output-as=xml", check=False)
        return ET.fromstring(shown.stdout) if shown.returncode == 0 else ET.Element("none")

    def configure(self) -> None:
        """The first start: what is to be looked after is stored by the cluster itself."""
        self.lab.on_both(self.start)
        until(self.online, "both nodes online in Pacemaker", within=90, every=0.5)
        self.lab.a.exec("crm", "configure", "load", "update", "-", stdin=RESOURCES, timeout=90)
        until(self.settled, "the virtual IP started by Pacemaker", within=60, every=0.5)
        self.lab.on_both(self.stop)


def everyone(pair: Pair) -> list[Rival]:
    """All rivals, on nodes that are prepared for each of them; none of them runs."""
    lab = pair.lab
    for node in lab.nodes.values():
        # No application runs here; the fewer daemons, the sooner a node is back.
        node.exec("systemctl", "disable", "--now", "docker.socket", "docker", "containerd")
    pair.install(package())
    pair.configure(HAOPERATOR)
    pair.start()
    pair.promote(lab.a)
    for node in lab.nodes.values():
        node.exec("systemctl", "disable", "ha-cluster.target")
    default = Haoperator(pair, "haoperator", "haoperator")
    lab.on_both(default.stop)
    pacemaker = Pacemaker(lab, "pacemaker", "Pacemaker + Corosync")
    pacemaker.configure()
    advert = f"version 3\n    advert_int {FASTEST_ADVERT:g}"
    return [
        default,
        Haoperator(pair, "haoperator-fast", "haoperator, fast", FAST),
        Keepalived(lab, "keepalived", "keepalived"),
        Keepalived(lab, "keepalived-fast", "keepalived, fastest", advert),
        pacemaker,
    ]


def versions(node: Node) -> dict[str, str]:
    """Upstream's versions of what is compared with, by the name of Debian's package."""
    names = ("corosync", "keepalived", "pacemaker")
    show = ("dpkg-query", "--show", "--showformat=${Package} ${Version}\n")
    lines = node.exec(*show, *names).stdout.splitlines()
    return {name: re.sub(r"^\d+:|-[^-]*$", "", version) for name, version in map(str.split, lines)}
