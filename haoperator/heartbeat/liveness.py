# SPDX-License-Identifier: Apache-2.0
"""Whether the peer is heard, link by link. Time is an input (CLOCK_MONOTONIC).

The peer is silent when no link brought anything for `detect`. Our own absence is
no evidence: when this process did not run for a while (stopped, or its machine
was), it first reads what waits in its sockets, and then grants the peer
`GRACE_BEATS` beats, because packets for a machine that stands still are lost.
"""

from __future__ import annotations

from collections.abc import Iterable

GRACE_BEATS = 2
"""Beats granted after an absence. One may have been lost, the next is on its way."""


class Liveness:
    """Level and edges: `reachable` is the level, `heard` and `judge` return the edges."""

    def __init__(self, links: Iterable[str], detect: float, heartbeat: float, now: float) -> None:
        self.reachable = False
        self._detect = detect
        self._heartbeat = heartbeat
        self._heard_at: dict[str, float | None] = dict.fromkeys(links)
        self._ran_at = now
        # Silence from the start is told once too, `detect` after it.
        self._deadline: float | None = now + detect

    @property
    def deadline(self) -> float | None:
        """When to judge next; None while the peer is known to be silent."""
        return self._deadline

    @property
    def silent(self) -> bool:
        """Nothing was heard for `detect`. Neither this nor `reachable` holds right after the
        start: then nothing is known."""
        return self._deadline is None

    def heard(self, link: str, now: float) -> bool:
        """A packet proved this link. True if the peer was not reachable before."""
        self._heard_at[link] = now
        self._deadline = now + self._detect
        again = not self.reachable
        self.reachable = True
        return again

    def ran(self, now: float) -> None:
        """This process is running. Call it with every beat and before `judge`."""
        absent = now - self._ran_at
        self._ran_at = now
        if absent > self._detect / 2 and self._deadline is not None:
            self._deadline = max(self._deadline, now + GRACE_BEATS * self._heartbeat)

    def judge(self, now: float) -> bool:
        """True once, when the peer has fallen silent. Read the sockets first."""
        if self._deadline is None or now < self._deadline:
            return False
        self._deadline = None
        self.reachable = False
        return True

    def links(self, now: float) -> dict[str, bool]:
        """Which links brought something within `detect`."""
        return {
            name: at is not None and now - at < self._detect for name, at in self._heard_at.items()
        }

    def ages(self, now: float) -> dict[str, float | None]:
        """How long ago each link brought something, None for never."""
        return {name: None if at is None else now - at for name, at in self._heard_at.items()}
