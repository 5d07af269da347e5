# SPDX-License-Identifier: Apache-2.0
"""The process that lives with a VIP: announces it, puts it back, gives it back.

Standard library only, 8 MB; the address itself is changed by a process that ends
at once (`haoperator.net.address`).
"""

from __future__ import annotations

import time

from haoperator.lean import process, trace
from haoperator.lean.notify import error, info, tell, warn, watchdog_seconds
from haoperator.lean.stop import StopRequest
from haoperator.net import presence
from haoperator.net.announcement import BURST, BURST_SECONDS, REPEAT_SECONDS, announce
from haoperator.net.vip import TRACE, Vip

RETRY_SECONDS = 1.0

_ADDRESS = "haoperator.net.address"


class Keeper:
    """`announced` counts the announcements of the present burst. Time is CLOCK_MONOTONIC."""

    def __init__(self, vip: Vip, announced: int) -> None:
        self._vip = vip
        self._announced = announced
        self._next = time.monotonic() + BURST_SECONDS
        self._trouble = ""

    def keep(self, stop: StopRequest) -> None:
        """Until a stop is requested."""
        watchdog = watchdog_seconds()
        with presence.watch() as news:
            while not stop.requested:
                self._look()
                now = time.monotonic()
                if now >= self._next:
                    self._announce(now)
                tell("WATCHDOG=1")
                pause = self._next - time.monotonic()
                if stop.wait(min(pause, watchdog / 2) if watchdog else pause, [news.fileno()]):
                    presence.drain(news)

    def give_back(self) -> bool:
        """Remove the address. True if it is gone for certain."""
        if presence.present(self._vip) and process.run(_ADDRESS, ["remove", *self._vip.arguments]):
            return False
        if presence.present(self._vip):
            return False
        trace.remove(TRACE, self._vip.name)
        return True

    def _look(self) -> None:
        if presence.present(self._vip):
            return
        if process.run(_ADDRESS, ["add", *self._vip.arguments]):
            self._next = min(self._next, time.monotonic() + RETRY_SECONDS)
            self._say("is gone and cannot be put back yet")
            return
        warn(f"VIP {self._vip}: somebody removed it; it is back")
        self._announced = 0
        self._next = time.monotonic()

    def _announce(self, now: float) -> None:
        try:
            announce(self._vip)
            self._trouble = ""
        except OSError as err:
            self._say(f"cannot be announced: {err.strerror}")
        self._announced += 1
        self._next = now + (BURST_SECONDS if self._announced < BURST else REPEAT_SECONDS)

    def _say(self, trouble: str) -> None:
        if trouble != self._trouble:
            warn(f"VIP {self._vip} {trouble}")
            self._trouble = trouble


def main(arguments: list[str]) -> int:
    """`NAME ADDRESS PREFIX INTERFACE`: it was added and announced once already.

    Exit code 0 says that the address is gone; anything else leaves that to
    `ha-vip --remove`.
    """
    stop = StopRequest()
    vip = Vip.parse(arguments)
    keeper = Keeper(vip, announced=1)
    keeper.keep(stop)
    tell("STOPPING=1", f"STATUS=giving back {vip.address}")
    if not keeper.give_back():
        error(f"VIP {vip}: could not be removed")
        return 1
    info(f"VIP {vip}: given back")
    return 0
