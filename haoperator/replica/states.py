# SPDX-License-Identifier: Apache-2.0
"""The words for what a replicator is and how it stands to its peer.

They are the values of the bus properties `Role` and `Stream`; see
docs/architecture.md, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Role(StrEnum):
    SECONDARY = "secondary"
    PRIMARY = "primary"
    HELD = "held"


class StreamState(StrEnum):
    # of a primary
    ALONE = "alone"
    RESYNC = "resync"
    SYNCED = "synced"
    HELD = "held"
    # of a standby, RESYNC and SYNCED as well
    DISCONNECTED = "disconnected"
    LOST = "lost"
    HANDED_OVER = "handed-over"


class Refused(Exception):
    """The replicator does not do what the operator asked for. Nothing has changed."""


@dataclass(frozen=True, slots=True)
class LinkPath:
    """One link: our address on it, and the peer's."""

    name: str
    own: str
    peer: str


@dataclass(frozen=True, slots=True)
class Settings:
    """What one replicator is told at its start."""

    cluster: str
    node: str
    peer: str
    key: bytes
    links: tuple[LinkPath, ...]
    directories: tuple[tuple[str, str], ...]
    """(name, path) in the order of the configuration."""
    record_path: Path
    run_directory: Path
    detect_seconds: float = 2.0
    port: int = 7411

    @property
    def detect_ms(self) -> int:
        return int(self.detect_seconds * 1000)
