# SPDX-License-Identifier: Apache-2.0
"""Five minutes of chaos, from a seed of its own each time; `make soak` goes on for an hour."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from . import applications
from .chaos import unleash
from .chaos_plan import Kind, Round
from .cluster import Pair
from .sequence import Operation, problems

SECONDS = 300.0


def test_chaos_loses_nothing_and_shows_nothing_stale(pair: Pair, directory: Path) -> None:
    seed = os.environ.get("SEED", f"{time.time():.0f}")
    print(f"SEED={seed}", flush=True)
    if not applications.is_set_up(pair):
        applications.set_up(pair)
    chaos = unleash(pair, SECONDS, seed, 1, directory)
    print(f"{chaos.faults} faults; {chaos.summary()}")
    assert chaos.faults >= 5


def test_round_follows_from_its_seed_and_number() -> None:
    assert Round.of("a", 1) == Round.of("a", 1)
    assert Round.of("a", 1) != Round.of("b", 1)
    kinds = {fault.kind for number in range(300) for fault in Round.of("a", number).faults}
    assert kinds == set(Kind)


NEVER = float("inf")
HISTORY = [
    Operation(0, 1, "add", 1),
    Operation(0.5, 1.5, "read", 0),
    Operation(1.5, 3, "read", 2),
    Operation(2, NEVER, "add", 2),
    Operation(4, 5, "add", 3),
    Operation(6, 7, "read", 3),
]


@pytest.mark.parametrize("final", [[1, 3], [1, 2, 3]])
def test_checker_accepts_what_may_happen(final: list[int]) -> None:
    """What got no answer may be there or not; a read beside an addition may see it or not."""
    seen = [o for o in HISTORY if 2 in final or o.number != 2]
    assert list(problems(seen, final)) == []


@pytest.mark.parametrize(
    ("more", "final", "problem"),
    [
        ([], [1, 2], "1 acknowledged additions are lost: 3"),
        ([], [1, 2, 3, 4], "1 numbers are there that nobody added: [4]"),
        ([Operation(5.1, 6, "read", 2)], [1, 2, 3], "1 stale reads: 2 at 5.100 instead of 3"),
        ([Operation(3.1, 3.2, "read", 1)], [1, 2, 3], "1 stale reads: 1 at 3.100 instead of 2"),
        ([Operation(3, 3.5, "read", 3)], [1, 2, 3], "1 reads saw what was not yet added: 3"),
    ],
)
def test_checker_finds_what_must_not_happen(
    more: list[Operation], final: list[int], problem: str
) -> None:
    (found,) = problems(HISTORY + more, final)
    assert problem in found
