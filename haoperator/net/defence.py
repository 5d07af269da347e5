# SPDX-License-Identifier: Apache-2.0
"""While an address is held: another machine claims it too.

RFC 5227, 2.4 leaves three answers to that. A service address is the third case (c): it
is not given up, and defended by one announcement for each ten seconds at most, so that
two machines that both insist do not fill the segment.

Pure: time is an input, in seconds of a monotonic clock.
"""

from __future__ import annotations

DEFEND_INTERVAL = 10.0
"""RFC 5227, 1.1."""
PROBE_SECONDS = 2.0
"""During a conflict: how often the other machine is asked whether it still has it."""
OVER_SECONDS = DEFEND_INTERVAL
"""The conflict is over when it has not answered for so long: five probes."""


class Defence:
    """`rival` is the MAC address of the machine that claimed the address last, else empty."""

    def __init__(self) -> None:
        self.rival = b""
        self._known: set[bytes] = set()
        self._claimed_at = 0.0
        self._defended_at = -DEFEND_INTERVAL

    def claimed(self, mac: bytes, now: float) -> bool:
        """Another machine claims the address. True if that is news in this conflict."""
        self.rival, self._claimed_at = mac, now
        news = mac not in self._known
        self._known.add(mac)
        return news

    def due(self, now: float) -> bool:
        """Whether an announcement may answer a claim now."""
        return now - self._defended_at >= DEFEND_INTERVAL

    def announced(self, now: float) -> None:
        """An announcement went out, for whatever reason: during a conflict it defends."""
        if self.rival:
            self._defended_at = now

    def over(self, now: float) -> bool:
        """True once, when nobody has claimed the address for OVER_SECONDS."""
        if not self.rival or now - self._claimed_at < OVER_SECONDS:
            return False
        self.rival = b""
        self._known.clear()
        return True
