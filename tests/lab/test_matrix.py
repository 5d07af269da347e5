# SPDX-License-Identifier: Apache-2.0
"""The most telling rows of the fault matrix; `make matrix` plays all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from .appends import Attempt, missing, turns_too_many
from .cluster import Pair
from .matrix import in_words, play
from .scenarios import scenarios

TELLING = (
    "heartbeat",
    "replication-out",
    "heartbeat-replication-client-network-primary",
    "client-network-standby-in",
    "power-double-stale",
    "stopped-all-primary",
    "dbus-primary",
    "application-both",
)


@pytest.mark.parametrize("name", TELLING)
def test_fault_has_the_outcome_that_was_written_down(
    pair: Pair, directory: Path, name: str
) -> None:
    (scenario,) = (s for s in scenarios() if s.name == name)
    played = play(pair, scenario, directory)
    print(in_words(played))
    assert played.all_problems == []
    assert played.appends > 0
    assert played.increments > 0


def told(*attempts: tuple[float, float, str]) -> list[Attempt]:
    """Acknowledged attempts: begin, end, and the line, which begins with its node."""
    return [Attempt(b, e, line.split(".")[0], line, "acknowledged") for b, e, line in attempts]


ONE_AFTER_THE_OTHER = told((0, 1, "a.1"), (1.1, 2, "a.2"), (0.5, 3, "b.1"), (3.1, 4, "b.2"))


def test_watcher_accepts_a_change_of_the_writer() -> None:
    there = ["a.1", "a.2", "a.3", "b.1", "b.2"]
    assert list(missing(ONE_AFTER_THE_OTHER, there)) == []
    assert list(turns_too_many(ONE_AFTER_THE_OTHER, 1)) == []


@pytest.mark.parametrize(
    ("there", "problem"),
    [
        (["a.1", "b.1", "b.2"], "1 of 4 acknowledged lines are lost: a.2"),
        (["a.2", "a.1", "b.1", "b.2"], "a.2 stands before a.1"),
        (["a.1", "b.2", "b.1", "a.2"], "b.2 stands before a.2"),
        (["a.1", "a.2", "a.2", "b.1", "b.2"], "more than once"),
    ],
)
def test_watcher_finds_what_a_second_writer_would_leave(there: list[str], problem: str) -> None:
    (found,) = missing(ONE_AFTER_THE_OTHER, there)
    assert problem in found


def test_watcher_finds_two_writers_in_turns() -> None:
    both = told((0, 1, "a.1"), (1.1, 2, "b.1"), (2.1, 3, "a.2"))
    (found,) = turns_too_many(both, 1)
    assert "2 times instead of 1" in found
