# SPDX-License-Identifier: Apache-2.0
"""How fast a walk may go, of a resync or a verification: as fast as it can while nobody
waits, and so that the application hardly notices while it writes.

Work and rest take turns. How long the application's changes wait for the peer is measured
in both; rests get longer while they wait more than `TOLERATED` times as long during work,
and shorter while there is hardly a difference. So no figure for a disk or a network has to
be known, and what other load there is counts for both.
"""

from __future__ import annotations

import math
import time
from typing import Protocol

from haoperator.replica.hashing import MOST_BLOCKS

TOLERATED = 1.6
"""Below the promised 2, because this compares means and the promise is about the 99th of 100."""
NO_DIFFERENCE = 1.2
WORK_SECONDS = 0.001
"""A piece of work before a rest; with what is in flight, an application waits no longer for it."""
STILL_THERE_SECONDS = 0.1
"""An application that has not written for so long does not count."""
MOST_REST_SECONDS = 0.2
LEAST_SHARE, MOST_SHARE = 0.25, 3.0
"""Rest as a multiple of work. Not more: a resync has to end, also beside an application that
never stops, because until then there is no second copy."""
MEMORY = 0.8
"""What of the former average counts on in the next."""
IN_FLIGHT, IN_FLIGHT_BESIDE = 64, 0
"""Frames of the walk that the peer may be behind, alone and beside an application."""
BLOCKS, BLOCKS_BESIDE = MOST_BLOCKS, 4
"""Blocks that are compared in one go, alone and beside an application."""


class Waits(Protocol):
    """The data path: how many changes the peer acknowledged, and how long they waited in all."""

    def waits(self) -> tuple[int, float]: ...


class Pace:
    """Of one walk. `rate` is the most that it sends, in bytes a second; 0: no bound.

    `shares`: beside an application it rests so many times as long as it works, least and most.
    """

    def __init__(
        self,
        waits: Waits,
        rate: int = 0,
        shares: tuple[float, float] = (LEAST_SHARE, MOST_SHARE),
    ) -> None:
        self._waits = waits
        self._rate = rate
        self._least_share, self._most_share = shares
        self._share = max(1.0, self._least_share)
        self._working = self._resting = 0.0
        self._began = time.monotonic()
        self._before = waits.waits()
        self._allowed_at = self._began
        self._wrote_at = -math.inf
        self.beside_an_application = False

    @property
    def in_flight(self) -> int:
        return IN_FLIGHT_BESIDE if self.beside_an_application else IN_FLIGHT

    @property
    def blocks(self) -> int:
        return BLOCKS_BESIDE if self.beside_an_application else BLOCKS

    def sent(self, size: int) -> None:
        """So many bytes go to the peer."""
        if self._rate:
            now = time.monotonic()
            self._allowed_at = max(self._allowed_at, now - 0.1) + size / self._rate

    def rest(self) -> None:
        """After each step. Hold no lock: now and then it sleeps."""
        now = time.monotonic()
        if self._rate and self._allowed_at > now:
            time.sleep(min(self._allowed_at - now, MOST_REST_SECONDS))
        worked = now - self._began
        if worked < WORK_SECONDS:
            return
        before, after = self._before, self._waits.waits()
        if after[0] > before[0]:
            self._wrote_at = now
        self.beside_an_application = now - self._wrote_at < STILL_THERE_SECONDS
        if self.beside_an_application:
            self._working = _average(self._working, before, after)
            time.sleep(min(MOST_REST_SECONDS, worked * self._share))
            rested = self._waits.waits()
            if rested[0] > after[0]:
                self._wrote_at = time.monotonic()
            self._resting = _average(self._resting, after, rested)
            self._adjust()
        self._before = self._waits.waits()
        self._began = time.monotonic()

    def _adjust(self) -> None:
        if not self._resting:
            return
        if self._working > TOLERATED * self._resting:
            self._share = min(self._most_share, self._share * 1.5)
        elif self._working < NO_DIFFERENCE * self._resting:
            self._share = max(self._least_share, self._share / 1.2)


def _average(former: float, before: tuple[int, float], after: tuple[int, float]) -> float:
    count = after[0] - before[0]
    if count == 0:
        return former
    wait = (after[1] - before[1]) / count
    return wait if former == 0 else MEMORY * former + (1 - MEMORY) * wait
