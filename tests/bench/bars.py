# SPDX-License-Identifier: Apache-2.0
"""What was to be reached, and whether it was."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

Rates = dict[tuple[str, str], list[float]]
"""(load, place) → what each round measured."""


@dataclass(frozen=True, slots=True)
class Bar:
    """haoperator's median in a load is to be at least `least` times that of `place`."""

    load: str
    place: str
    least: float


BARS = (
    Bar("write", "gluster-sync", 8),
    Bar("write8", "gluster-sync", 12),
    Bar("synced", "gluster-sync", 2.2),
    Bar("synced8", "gluster-sync", 4),
    Bar("large", "gluster-sync", 1.7),
    Bar("files", "gluster-sync", 5),
    Bar("untar", "gluster-sync", 10),
    Bar("sqlite", "gluster-sync", 10),
    Bar("pgbench", "gluster-sync", 3),
    Bar("write", "bare", 0.6),
    Bar("write8", "bare", 0.8),
    Bar("cached", "raw", 0.7),
)


def ratio(rates: Rates, load: str, place: str, to: str) -> float | None:
    """Of the medians; None where one of the two was not measured."""
    ours, theirs = rates.get((load, place)), rates.get((load, to))
    return median(ours) / median(theirs) if ours and theirs else None
