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

    @property
    def permission_seconds(self) -> float:
        """How long before its deadline a permission to write without the peer was given: the
        operator gives it for half of `detect`."""
        return self.detect_seconds / 2

    @property
    def pulse_seconds(self) -> float:
        """How often a sign of life is given, on the stream or by a knock. `detect` is several of
        them, or a silence of that length would say nothing."""
        return min(0.5, self.detect_seconds / 4)

    @property
    def retry_seconds(self) -> float:
        """How soon a primary looks for its standby again: writes wait."""
        return min(0.2, self.detect_seconds / 8)

    @property
    def connect_seconds(self) -> float:
        """How long a connection may take to be made. Its first packet may have been lost: the
        kernel sends it again after a whole second only, a new attempt at once."""
        return min(1.0, self.detect_seconds / 2)

    @property
    def head_start_seconds(self) -> float:
        """What a link gets before the next one is tried beside it. A dead one must not cost more:
        writes wait meanwhile, and after HELD_PATIENCE_SECONDS of the core the standby would be
        left behind."""
        return min(0.1, self.detect_seconds / 8)
