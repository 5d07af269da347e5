# SPDX-License-Identifier: Apache-2.0
"""haoperator on the nodes of the lab, installed and driven as an administrator would."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from .command import LabError, run
from .lab import Lab
from .node import Node
from .place import BUILD, PROJECT
from .waiting import until

DATA = "/srv/shop/data"
DURABILITY = os.environ.get("HAOPERATOR_LAB_DURABILITY", "write")
"""The scenarios and soaks promise the same in each mode of the data plane."""
CONFIG = f"""\
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
address = "10.0.0.100/24"
interface = "eth0"

[replicate.data]
path = "{DATA}"
durability = "{DURABILITY}"

[app.redis]
image = "redis-demo:1"
ports = ["6379:6379"]
volumes = ["{DATA}:/data"]
command = [
    "redis-server", "--dir", "/data", "--appendonly", "yes", "--appendfsync", "always",
    "--save", "", "--protected-mode", "no",
]

[checker.redis]
app = "redis"
tcp = "127.0.0.1:6379"

[witness]
ping = ["10.0.0.254"]
"""
DETECT = 2.0
"""Seconds: the default of [timing] detect."""
CLUSTER = ("org.haoperator1", "/org/haoperator1", "org.haoperator1.Cluster")
HEARTBEAT = (
    "org.haoperator1.Heartbeat",
    "/org/haoperator1/heartbeat",
    "org.haoperator1.Heartbeat",
)


class Pair:
    """Two nodes that are, or become, one cluster."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab

    @property
    def nodes(self) -> tuple[Node, Node]:
        return self.lab.a, self.lab.b

    def install(self, deb: Path) -> None:
        """`apt install ./haoperator_*.deb` on both nodes."""

        def one(node: Node) -> None:
            node.install(node.copy_in(deb))

        self.lab.on_both(one)

    def configure(self, text: str = CONFIG) -> None:
        """The directory, the key and the configuration, the same on both; starts nothing."""
        self.lab.a.exec("hactl", "keygen")
        key = self.lab.a.exec("cat", "/etc/haoperator/cluster.key").stdout
        self.lab.b.put("/etc/haoperator/cluster.key", key, 0o600)
        for node in self.nodes:
            node.exec("mkdir", "-p", DATA)
            node.put("/etc/haoperator/cluster.toml", text)
            node.exec("hactl", "check-config")

    def start(self) -> None:
        """Both nodes take part. They WAIT: nobody knows yet whose data is the right one."""
        for node in self.nodes:
            node.exec("systemctl", "daemon-reload")
            node.exec("hactl", "start")
        self.wait({"node-a": "WAIT", "node-b": "WAIT"}, within=20)

    def promote(self, node: Node, within: float = 60.0) -> None:
        """The first promotion, up to PRIM and SECOND."""
        node.exec("hactl", "promote")
        self.wait({node.name: "PRIM", self.lab.other(node).name: "SECOND"}, within)

    def reconfigure(self, text: str) -> None:
        """Both nodes leave in order, get another configuration, and come back by themselves."""
        former = self.primary
        for node in (self.standby, former):
            node.exec("systemctl", "stop", "ha-cluster.target", timeout=90)
        for node in self.nodes:
            node.put("/etc/haoperator/cluster.toml", text)
            node.exec("systemctl", "daemon-reload")
        for node in self.nodes:
            node.exec("hactl", "start")
        self.wait_healthy()
        assert self.primary is former, "the last primary has the newest data"

    def state(self, node: Node) -> str:
        """What the operator shows on the bus; "off" without power, "" without an operator
        that answers."""
        if not node.powered:
            return "off"
        get = ("busctl", "--timeout=2s", "--json=short", "get-property")
        shown = node.exec(*get, *CLUSTER, "State", check=False)
        return str(json.loads(shown.stdout)["data"]) if shown.returncode == 0 else ""

    def states(self) -> dict[str, str]:
        return {node.name: self.state(node) for node in self.nodes}

    def status(self, node: Node) -> dict[str, Any]:
        """`hactl status --json` of a node."""
        shown = node.exec("hactl", "status", "--json")
        return dict(json.loads(shown.stdout))

    def replication(self, node: Node) -> dict[str, Any]:
        """How the replicated directory of the lab is, as `node` tells it."""
        return dict(self.status(node)["replication"][0])

    def links(self, node: Node) -> dict[str, bool]:
        """Which heartbeat links the node hears its peer on."""
        shown = node.exec("busctl", "--json=short", "get-property", *HEARTBEAT, "Links")
        return dict(json.loads(shown.stdout)["data"])

    def wait(self, wanted: dict[str, str], within: float) -> None:
        """Returns when each node named is in the state wanted of it."""
        until(
            lambda: all(self.state(self.lab.nodes[n]) == s for n, s in wanted.items()),
            " and ".join(f"{n} {s}" for n, s in wanted.items()),
            within=within,
            hint=self.explain,
        )

    def wait_healthy(self, within: float = 60.0) -> None:
        """Returns when one node is PRIM and the other SECOND."""
        until(
            self.healthy,
            "one node PRIM, the other SECOND",
            within=within,
            hint=self.explain,
        )

    def healthy(self) -> bool:
        return sorted(self.states().values()) == ["PRIM", "SECOND"]

    @property
    def primary(self) -> Node:
        """The node that is PRIM or ALONE."""
        for node in self.nodes:
            if self.state(node) in ("PRIM", "ALONE"):
                return node
        raise LabError(f"no node is primary: {self.states()}", self.explain())

    @property
    def standby(self) -> Node:
        return self.lab.other(self.primary)

    def explain(self) -> str:
        """How things stand, for the message of a failure."""
        parts = [f"states {self.states()}, cuts {self.lab.network.cuts()}"]
        for node in self.nodes:
            options = ("-n", "15", "-o", "short-precise", "--no-hostname", "-u", "ha*")
            parts.append(f"-- {node.name}\n{node.journal(*options)}")
        return "\n".join(parts)

    def container(self, node: Node, name: str = "redis") -> dict[str, Any] | None:
        """`docker inspect` of the running container of an application; None if there is none."""
        image = "redis-demo:1" if name == "redis" else name
        listed = node.exec("docker", "ps", "-q", "--no-trunc", "-f", f"ancestor={image}")
        if not (ids := listed.stdout.split()):
            return None
        return dict(json.loads(node.exec("docker", "inspect", ids[0]).stdout)[0])

    def has_vip(self, node: Node) -> bool:
        return "10.0.0.100/" in node.exec("ip", "-4", "address", "show", "dev", "eth0").stdout

    def save_evidence(self, directory: Path) -> None:
        """Both journals, the status of both nodes and their consoles."""
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "states.txt").write_text(self.explain())
        for node in self.nodes:
            journal = node.journal("-o", "short-precise", "--no-pager")
            (directory / f"{node.name}.journal").write_text(journal)
            if node.console.exists():
                shutil.copy(node.console, directory / f"{node.name}.console")
            if node.powered:
                looks = (("hactl", "why"), ("hactl", "status"), ("systemctl", "--failed"))
                told = [node.exec(*look, check=False) for look in looks]
                text = "\n".join(f"{t.stdout}{t.stderr}" for t in told)
                (directory / f"{node.name}.status").write_text(text)


def package() -> Path:
    """The newest .deb in build/, built now if there is none."""
    found = sorted(BUILD.glob("haoperator_*.deb"), key=lambda p: p.stat().st_mtime)
    if not found:
        run(PROJECT / "packaging/build-deb", BUILD, timeout=900)
        found = sorted(BUILD.glob("haoperator_*.deb"))
    if not found:
        raise LabError("packaging/build-deb left no package in build/", "packaging/build-deb build")
    return found[-1]
