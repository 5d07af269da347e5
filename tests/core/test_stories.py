# SPDX-License-Identifier: Apache-2.0
"""The page of the life cycle is what the shipped core does."""

from __future__ import annotations

import difflib

from tests.core.life_cycle import EDGES, PAGE, page
from tests.core.simulator import life

MOST_LIVES = 10_000


def test_the_page_of_the_life_cycle_tells_what_the_core_does() -> None:
    written, now = PAGE.read_text(encoding="utf-8"), page()
    differs = "\n".join(difflib.unified_diff(written.splitlines(), now.splitlines(), lineterm=""))
    assert written == now, f"python3 -m tests.core.life_cycle writes it anew:\n{differs}"


def test_the_picture_of_the_states_has_the_edges_that_are_taken() -> None:
    """Random histories, until each edge was taken once."""
    left = set(EDGES)
    for seed in range(MOST_LIVES):
        taken = {(former, to) for former, to in life(seed, times=1).edges if former != to}
        assert taken <= EDGES.keys(), f"seed {seed}: {taken - EDGES.keys()}"
        left -= taken
        if not left:
            return
    raise AssertionError(f"never taken: {left}")
