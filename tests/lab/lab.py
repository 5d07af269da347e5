# SPDX-License-Identifier: Apache-2.0
"""The lab as a whole: two nodes, a client and a witness on one segment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import base, containers, host
from .command import LabError, run
from .ledger import Ledger, Process, remove_cgroup
from .lock import locked
from .network import Network
from .node import Node
from .place import NODES, Place


class Lab:
    """Sets up, finds and takes down the lab of one place."""

    def __init__(self, place: Place | None = None, layers: Sequence[Path] = ()) -> None:
        """`layers`: what lies over the base image, the uppermost first."""
        self.place = place or Place.from_environment()
        self.ledger = Ledger(self.place.ledger)
        self.network = Network(self.place, self.ledger)
        self.base = self.place.cache / f"base-{base.key()}"
        image = (*layers, self.base)
        self.nodes = {
            name: Node(self.place, name, image, self.ledger, self.network) for name in NODES
        }

    @property
    def a(self) -> Node:
        return self.nodes["node-a"]

    @property
    def b(self) -> Node:
        return self.nodes["node-b"]

    def node(self, name: str) -> Node:
        """A node by its name, or by its letter."""
        full = name if name in self.nodes else f"node-{name}"
        if full not in self.nodes:
            raise LabError(f"there is no node {name}: the nodes are a and b")
        return self.nodes[full]

    def other(self, node: Node) -> Node:
        return self.b if node is self.a else self.a

    def up(self, *, owned: bool = False) -> None:
        """Two new servers, booted, with the container images loaded.

        Removes a former lab of the same place first. With `owned`, the lab belongs
        to this process, and no other may replace it while this one lives.
        """
        with locked(self.place.lock):
            self._refuse_if_owned()
            host.check()
            self._remove()
            base.provide(self.place.cache)
            images = containers.provide(self.place.cache, self.base)
            self.place.run.mkdir(parents=True, exist_ok=True)
            if owned:
                self.ledger.note_owner(Process.of(os.getpid()))
            self.ledger.note("cgroups", host.cgroup2() / self.place.name)
            self.ledger.note("directories", self.place.disks)
            self.network.up()

            def new(node: Node) -> None:
                node.create()
                node.boot()
                node.wait_active("docker.service", "multi-user.target")
                for image in images.values():
                    self.load(node, image)

            self.on_both(new)

    def on_both(self, action: object) -> None:
        """Does something to both nodes at the same time; raises the first error."""
        assert callable(action)
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(action, self.nodes.values()))

    def load(self, node: Node, image: Path) -> None:
        """`docker load` of an image archive of the machine."""
        path = node.copy_in(image)
        node.exec("docker", "load", "--quiet", "--input", path)
        node.exec("rm", path)

    def down(self) -> None:
        """Removes the lab and all that it left on the machine, but not the cached images."""
        with locked(self.place.lock):
            self._refuse_if_owned()
            self._remove()

    def in_client(self, *argv: str) -> tuple[str, ...]:
        """The words that run a command of the machine in the client's network."""
        return ("nsenter", f"--net=/run/netns/{self.place.namespace('client')}", *argv)

    def ping(self, address: str, *, source: str = "client", within: float = 1.0) -> bool:
        """Whether `address` answers one echo request; the ping program is the base image's."""
        where = f"--net=/run/netns/{self.place.namespace(source)}"
        command = ("chroot", str(self.base), "ping", "-c", "1", "-n", "-W", f"{within:g}", address)
        return run("nsenter", where, *command, check=False).returncode == 0

    def status(self) -> dict[str, object]:
        """How the lab stands, for a person or a script."""
        if not self.place.ledger.exists():
            return {"lab": "down"}
        owner = self.ledger.owner
        return {
            "lab": "up",
            "owner": owner.pid if owner and owner.alive() else None,
            "nodes": {n.name: n.leader if n.powered else "no power" for n in self.nodes.values()},
            "cuts": self.network.cuts(),
        }

    def _refuse_if_owned(self) -> None:
        owner = self.ledger.owner
        if owner and owner.alive() and owner.pid != os.getpid():
            raise LabError(
                f"the lab {self.place.name} belongs to process {owner.pid}, which is running",
                "wait for its end, or set HAOPERATOR_LAB to another name for a second lab",
            )

    def _remove(self) -> None:
        """Ledger first, then the directories that the ledger lies in."""
        self.ledger.clear()
        remove_cgroup(host.cgroup2() / self.place.name)
        shutil.rmtree(self.place.run, ignore_errors=True)
