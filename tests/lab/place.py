# SPDX-License-Identifier: Apache-2.0
"""Where a lab lives on the machine, and what its parts are called.

Everything that a lab makes outside its own directories (network namespaces,
cgroups, mounts) carries the lab's name, so that two labs can run side by side
and so that leftovers can be told from what belongs to somebody else.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
BUILD = PROJECT / "build"

NODES = ("node-a", "node-b")
LINKS = ("lan", "direct")


@dataclass(frozen=True, slots=True)
class Place:
    """The directories and names of one lab."""

    name: str
    run: Path
    """Runtime state: mount points, console logs, the ledger. Gone after a reboot."""
    cache: Path
    """What is expensive to make, and the disks of the nodes. Survives everything."""

    @classmethod
    def from_environment(cls) -> Place:
        """The lab that HAOPERATOR_LAB (its name) and HAOPERATOR_LAB_CACHE ask for."""
        name = os.environ.get("HAOPERATOR_LAB", "haoperator-lab")
        cache = os.environ.get("HAOPERATOR_LAB_CACHE", "/var/cache/haoperator-lab")
        return cls(name, Path("/run") / name, Path(cache))

    @property
    def ledger(self) -> Path:
        return self.run / "state.json"

    @property
    def lock(self) -> Path:
        """Held while a lab of this name is set up or torn down."""
        return Path("/run") / f"{self.name}.lock"

    @property
    def disks(self) -> Path:
        """Upper layers, Docker's directories and data images of this lab's nodes."""
        return self.cache / f"disks-{self.name}"

    def namespace(self, part: str) -> str:
        """Name of the network namespace of `part`: a node, `segment`, `client`, `witness`."""
        return f"{self.name}-{part}"


@dataclass(frozen=True, slots=True)
class Port:
    """One plug: a device in a namespace, and its socket on a bridge of the segment."""

    part: str
    device: str
    link: str
    address: str
    mac: str

    @property
    def socket(self) -> str:
        """The bridge's side of the cable; at most 15 characters, as the kernel wants."""
        return f"{self.link}-{self.part.removeprefix('node-')}"


PORTS = (
    Port("node-a", "eth0", "lan", "10.0.0.1/24", "02:00:00:00:00:0a"),
    Port("node-b", "eth0", "lan", "10.0.0.2/24", "02:00:00:00:00:0b"),
    Port("node-a", "eth1", "direct", "10.0.1.1/24", "02:00:00:00:01:0a"),
    Port("node-b", "eth1", "direct", "10.0.1.2/24", "02:00:00:00:01:0b"),
    Port("client", "eth0", "lan", "10.0.0.50/24", "02:00:00:00:00:32"),
    Port("witness", "eth0", "lan", "10.0.0.254/24", "02:00:00:00:00:fe"),
)


def ports_of(part: str, link: str | None = None) -> tuple[Port, ...]:
    """The plugs of `part`, on `link` alone if one is named."""
    return tuple(p for p in PORTS if p.part == part and link in (None, p.link))
