# SPDX-License-Identifier: Apache-2.0
"""How far a verification is and what came of it: the bus property `Verification`."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice

from haoperator.replica.difference import SHOWN, Differences

ENTRY_WEIGHT = 4096
"""Bytes of content that a name counts for as much as, in the progress."""


class VerifyState(StrEnum):
    """What became of it."""

    NONE = "none"
    """None was asked for since the replicator started."""
    RUNNING = "running"
    REPAIRING = "repairing"
    DONE = "done"
    STOPPED = "stopped"
    """It did not get to its end; `reason` says why. What was found until then holds."""


@dataclass(slots=True)
class Verification:
    """One verification. Written by its thread, read by any."""

    state: VerifyState = VerifyState.NONE
    repair: bool = False
    started: float = 0.0
    """Seconds since 1970, as `ended`: to be shown, nothing is decided by it."""
    ended: float = 0.0
    reason: str = ""
    weight: int = 0
    """Of all that is to be compared, as it was counted at the start."""
    weighed: int = 0
    directories: int = 0
    files: int = 0
    """Names of anything but directories."""
    bytes: int = 0
    missed: int = 0
    """Names that were moved about faster than they could be compared."""
    found: Differences = field(default_factory=Differences)
    repaired: int = 0
    resync: bool = False
    """What differs is brought over by a resync, which was begun for it."""

    @property
    def running(self) -> bool:
        return self.state in (VerifyState.RUNNING, VerifyState.REPAIRING)

    @property
    def progress(self) -> float:
        if self.state is VerifyState.DONE:
            return 1.0
        return min(0.999, self.weighed / self.weight) if self.weight else 0.0

    def compared(self, *, names: int = 0, content: int = 0) -> None:
        """Something was compared, or need not be any more."""
        self.weighed += names * ENTRY_WEIGHT + content
        self.bytes += content

    def end(self, state: VerifyState, reason: str = "") -> None:
        self.reason = reason
        self.ended = time.time()
        self.state = state

    def to_json(self) -> str:
        return json.dumps(
            {
                "state": self.state.value,
                "repair": self.repair,
                "started": round(self.started, 3),
                "ended": round(self.ended, 3),
                "reason": self.reason,
                "progress": round(self.progress, 3),
                "directories": self.directories,
                "files": self.files,
                "bytes": self.bytes,
                "missed": self.missed,
                "difference_count": self.found.count,
                "differences": [each.to_json() for each in islice(self.found, SHOWN)],
                "repaired": self.repaired,
                "resync": self.resync,
            }
        )
