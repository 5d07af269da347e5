# SPDX-License-Identifier: Apache-2.0
"""docs/takeover.md and its picture."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.lab.lab import Lab


@dataclass(frozen=True, slots=True)
class Cut:
    """One power cut. All in seconds."""

    rival: str
    died: str
    took: float
    """From the command that cuts until the survivor's first answer for the address."""
    gap: float
    """The same, from the last answer of the node that died."""
    moves: int
    """How often another node answered while nothing had happened."""
    watched: float
    """How long nothing had happened."""

    def __str__(self) -> str:
        moved = f", had moved {self.moves} times before" if self.moves else ""
        return f"{self.died} died: {self.took:.3f} s (gap {self.gap:.3f} s){moved}"


def write(cuts: list[Cut], lab: Lab, load: float, docs: Path) -> None:
    pass
