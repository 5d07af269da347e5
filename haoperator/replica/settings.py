# SPDX-License-Identifier: Apache-2.0
"""What a replicator is told at its start."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tomlconfig.model import Durability


@dataclass(frozen=True, slots=True)
class LinkPath:
    """One link: our address on it, and the peer's."""

    name: str
    own: str
    peer: str


@dataclass(frozen=True, slots=True)
class ReplicatedDirectory:
    """One replicated directory. Its mode is a matter of this node's kernel and mount alone:
    the stream is the same in both, and the peer is not asked for its own."""

    name: str
    path: str
    durability: Durability = Durability.WRITE


@dataclass(frozen=True, slots=True)
class Settings:
    """One node of the pair, its peer, and what they replicate."""

    cluster: str
    node: str
    peer: str
    key: bytes
    links: tuple[LinkPath, ...]
    directories: tuple[ReplicatedDirectory, ...]
    """In the order of the configuration."""
    record_path: Path
    run_directory: Path
    detect_seconds: float = 2.0
    port: int = 7411
    resync_rate: int = 0
    """Bytes a second that a resync sends at most; 0: no bound."""
    snapshot_before_resync: bool = False
    checkpoint_seconds: float = 30.0
    """How often what both disks have is retired from the intent log."""

    @property
    def detect_ms(self) -> int:
        return int(self.detect_seconds * 1000)
