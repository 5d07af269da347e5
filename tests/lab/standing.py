# SPDX-License-Identifier: Apache-2.0
"""The cluster that all scenarios stand on: made once, put in order before each of them."""

from __future__ import annotations

from .cluster import Pair, package
from .command import LabError


class Standing(Pair):
    """Any scenario may leave it in a sorry state; the next one finds it in order again."""

    after_install: dict[str, str]
    """What `systemctl is-active ha-cluster.target` said right after the installation."""

    def new(self, *, owned: bool = False) -> None:
        """Two new servers, the package installed, a cluster with node-a as primary."""
        self.lab.up(owned=owned)
        self.install(package())
        active = ("systemctl", "is-active", "ha-cluster.target")
        self.after_install = {
            node.name: node.exec(*active, check=False).stdout.strip() for node in self.nodes
        }
        self.configure()
        self.start()
        self.promote(self.lab.a)

    def in_order(self) -> bool:
        """Whether all is mended, has power, and is PRIM and SECOND, or becomes so."""
        try:
            self.lab.network.heal()
            for node in self.nodes:
                if not node.powered:
                    node.boot()
            self.wait_healthy(within=45)
        except LabError:
            return False
        return True
