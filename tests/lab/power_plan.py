# SPDX-License-Identifier: Apache-2.0
"""What is left to chance in a power cut, and what came of it.

The choice follows from a seed and a number, so that any cut can be had again:
`python3 -m tests.lab power 1 --seed S --first NUMBER`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Whose power is cut."""

    PRIMARY = "primary"
    STANDBY = "standby"
    BOTH = "both at once"
    PRIMARY_AGAIN = "primary again, in the resync"
    STANDBY_AGAIN = "standby again, in the resync"


class Return(StrEnum):
    """How the power comes back after both lost it."""

    TOGETHER = "together"
    PRIMARY_FIRST = "the primary first"
    STANDBY_FIRST = "the standby first"
    STANDBY_FORCED = "the standby, forced to serve without the primary"


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is left to chance in one cut."""

    number: int
    kind: Kind
    promises: int
    """How many are made before the cut."""
    first: str
    """Who is cut first, where a second cut meets the resync."""
    progress: float
    """How far the resync is when that comes, 0 to 1."""
    back: Return

    @classmethod
    def of(cls, seed: str, number: int, kind: Kind | None = None) -> Plan:
        chance = random.Random(f"{seed} {number}")
        drawn = chance.choice(list(Kind))
        return cls(
            number=number,
            kind=kind or drawn,
            promises=chance.randint(20, 600),
            first=chance.choice(("primary", "standby")),
            progress=chance.random() * 0.9,
            back=chance.choice(list(Return)),
        )

    def __str__(self) -> str:
        match self.kind:
            case Kind.BOTH:
                return f"{self.kind}; back: {self.back}"
            case Kind.PRIMARY_AGAIN | Kind.STANDBY_AGAIN:
                return f"{self.kind} after the {self.first}, at {self.progress:.0%}"
        return str(self.kind)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one cut."""

    plan: Plan
    died: str
    notes: str
    promises: int
    """How many were made, before, between and after the cuts; all of them are kept."""
    seconds: float
    """From the last power that was given to PRIM and SECOND."""

    def __str__(self) -> str:
        told = f" ({self.notes})" if self.notes else ""
        return (
            f"{self.plan}: {self.died}{told}; {self.promises} promises kept, trees equal, "
            f"PRIM/SECOND {self.seconds:.1f} s after the last power-up"
        )
