# SPDX-License-Identifier: Apache-2.0
"""A bounded run of the explorer; `make explore` is the whole one."""

from __future__ import annotations

import sys

import pytest

from tests.core.explorer import CASES, WITHOUT_ASSUMPTION, Case, Exploration

STATES = 2_000
"""Of each case: a second of a core, and each disturbance at the very beginning."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_state_has_two_writers_or_a_lost_write_or_no_way_to_rest(case: Case) -> None:
    outcome = Exploration(case, disturbances=1, states=STATES).run()
    assert outcome.counterexample is None, str(outcome.counterexample)
    assert outcome.whole or outcome.states >= STATES


def test_two_writers_are_found_where_the_assumption_about_the_paths_does_not_hold() -> None:
    outcome = Exploration(
        WITHOUT_ASSUMPTION, disturbances=1, states=10 * STATES, settles_every=sys.maxsize
    ).run()
    found = outcome.counterexample
    assert found is not None
    assert found.claim == "two writers"
    assert [move for move, disturbs in found.moves if disturbs] == [
        "all paths between the nodes are cut"
    ]
    # The transcript is a story: who did what, when, and what it showed.
    assert "-- all paths between the nodes are cut" in found.transcript
    assert "node-b: ALONE" in found.transcript
