# SPDX-License-Identifier: Apache-2.0
"""A resync rests as long as the application beside it needs, in time that is simulated."""

from __future__ import annotations

import pytest

from haoperator.replica import pacing
from haoperator.replica.pacing import BLOCKS, BLOCKS_BESIDE, Pace
from haoperator.replica.verify import REST_SHARES


class World:
    """A clock, and an application whose changes wait so long beside work, and beside rest."""

    def __init__(self, *, beside_work: float, beside_rest: float, changes_per_second: int) -> None:
        self.now = 1000.0
        self.rested = 0.0
        self._beside_work, self._beside_rest = beside_work, beside_rest
        self._rate = changes_per_second
        self._answered, self._waited = 0.0, 0.0

    def _pass(self, seconds: float, wait: float) -> None:
        self.now += seconds
        self._answered += seconds * self._rate
        self._waited += seconds * self._rate * wait

    def work(self, seconds: float) -> None:
        self._pass(seconds, self._beside_work)

    # What pacing.py sees.

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.rested += seconds
        self._pass(seconds, self._beside_rest)

    def waits(self) -> tuple[int, float]:
        return int(self._answered), self._waited


def share_of_rest(monkeypatch: pytest.MonkeyPatch, world: World) -> tuple[Pace, float]:
    """The part of the time that a resync rested, once it knows the world."""
    monkeypatch.setattr(pacing, "time", world)
    pace = Pace(world)
    for _ in range(60):
        world.work(0.02)
        pace.rest()
    began, world.rested = world.now, 0.0
    for _ in range(60):
        world.work(0.02)
        pace.rest()
    return pace, world.rested / (world.now - began)


def test_alone_it_never_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(beside_work=0, beside_rest=0, changes_per_second=0)
    pace, share = share_of_rest(monkeypatch, world)
    assert share == 0
    assert pace.blocks == BLOCKS


def test_application_that_notices_nothing_is_left_a_little(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(beside_work=1e-4, beside_rest=1e-4, changes_per_second=1000)
    pace, share = share_of_rest(monkeypatch, world)
    assert 0 < share < 0.3
    assert pace.blocks == BLOCKS_BESIDE


def test_application_that_waits_three_times_as_long_gets_most_of_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(beside_work=3e-4, beside_rest=1e-4, changes_per_second=1000)
    _, share = share_of_rest(monkeypatch, world)
    assert share > 0.7


def test_rate_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(beside_work=0, beside_rest=0, changes_per_second=0)
    monkeypatch.setattr(pacing, "time", world)
    pace = Pace(world, rate=1_000_000)
    began = world.now
    for _ in range(100):
        pace.sent(65_536)
        world.work(0.001)
        pace.rest()
    assert 6.0 < world.now - began < 7.0


@pytest.mark.parametrize("beside_work", [1e-4, 1e-2])
def test_verification_takes_a_fifth_to_a_quarter_of_the_time(
    monkeypatch: pytest.MonkeyPatch, beside_work: float
) -> None:
    world = World(beside_work=beside_work, beside_rest=1e-4, changes_per_second=1000)
    monkeypatch.setattr(pacing, "time", world)
    pace = Pace(world, shares=REST_SHARES)
    began = world.now
    for _ in range(100):
        world.work(0.02)
        pace.rest()
    assert 0.75 <= world.rested / (world.now - began) <= 0.81
