# SPDX-License-Identifier: Apache-2.0
"""The process that lives with a VIP: announces it, puts it back, defends it, gives it back.

Standard library only, 8 MB; the address itself is changed by a process that ends
at once (`haoperator.net.address`).
"""

from __future__ import annotations

import time

from haoperator.lean import interface, netlink, process, trace
from haoperator.lean.address_socket import AddressSocket
from haoperator.lean.configuration import EXIT_UNAVAILABLE
from haoperator.lean.notify import error, info, tell, warn, watchdog_seconds
from haoperator.lean.stop import StopRequest
from haoperator.net.defence import PROBE_SECONDS, Defence
from haoperator.net.presence import present
from haoperator.net.vacancy import LOST_SECONDS
from haoperator.net.vip import TRACE, Vip

BURST = 5
BURST_SECONDS = 0.2
"""The burst outlives a switch port that learns slowly or drops a frame."""
REPEAT_SECONDS = 10.0
"""Afterwards now and then, for whoever missed all of it. A probe goes along: a machine that
has the address too may keep silent otherwise."""
RETRY_SECONDS = 0.5

_ADDRESS = "haoperator.net.address"


class Keeper:
    """`announced` counts the announcements of the present burst. Time is CLOCK_MONOTONIC."""

    def __init__(self, vip: Vip, announced: int) -> None:
        now = time.monotonic()
        self._vip = vip
        self._announced = announced
        self._announce_at = now + BURST_SECONDS
        self._probe_at = now + REPEAT_SECONDS
        self._defence = Defence()
        self._socket: AddressSocket | None = None
        self._trouble = ""
        self._lost_at: float | None = None
        self._shown = ""

    def keep(self, stop: StopRequest) -> str:
        """Until a stop is requested; then `""`. Or until the address has been of no use for
        LOST_SECONDS; then why."""
        watchdog = watchdog_seconds()
        with netlink.watch() as news:
            while not stop.requested:
                now = time.monotonic()
                self._look(now)
                if self._lost_at is None:
                    self._stand(now)
                elif now - self._lost_at >= LOST_SECONDS:
                    return self._trouble
                self._show()
                tell("WATCHDOG=1")
                pause = self._pause(time.monotonic())
                pause = min(pause, watchdog / 2) if watchdog else pause
                descriptors = [news.fileno()]
                if self._socket is not None and not self._defence.rival:
                    descriptors.append(self._socket.fileno())
                if news.fileno() in stop.wait(pause, descriptors):
                    netlink.drain(news)
        return ""

    def give_back(self) -> bool:
        """Remove the address. True if it is gone for certain."""
        self._close()
        if present(self._vip) and process.run(_ADDRESS, ["remove", *self._vip.arguments]):
            return False
        if present(self._vip):
            return False
        trace.remove(TRACE, self._vip.name)
        return True

    def _look(self, now: float) -> None:
        """Is it there, and of use? If not, put it back."""
        trouble = interface.trouble(self._vip.interface)
        if not trouble and not present(self._vip):
            if process.run(_ADDRESS, ["add", *self._vip.arguments]):
                trouble = "is gone and cannot be put back yet"
            elif self._lost_at is None:
                warn(f"VIP {self._vip}: somebody removed it; it is back")
                self._begin_burst(now)
        if trouble:
            self._say(trouble)
            self._lost_at = now if self._lost_at is None else self._lost_at
            self._close()
        elif self._lost_at is not None:
            info(f"VIP {self._vip}: is back")
            self._trouble, self._lost_at = "", None
            self._begin_burst(now)

    def _stand(self, now: float) -> None:
        """Hear who else claims it, and tell everybody that it is here."""
        try:
            if self._socket is not None and self._socket.stale:
                self._close()
            if self._socket is None:
                self._socket = AddressSocket(self._vip.interface, self._vip.packed)
            for mac in self._socket.claimants():
                self._contend(self._socket, mac, now)
            if now >= self._announce_at:
                self._announce(self._socket, now)
            if now >= self._probe_at:
                self._socket.probe()
                self._probe_at = now + (PROBE_SECONDS if self._defence.rival else REPEAT_SECONDS)
            self._trouble = ""
        except OSError as err:
            self._say(f"cannot be announced: {err.strerror}")
            self._close()
            self._announce_at = self._probe_at = now + RETRY_SECONDS
        if self._defence.over(now):
            info(f"VIP {self._vip}: the conflict is over")

    def _contend(self, sock: AddressSocket, mac: bytes, now: float) -> None:
        if self._defence.claimed(mac, now):
            warn(f"VIP {self._vip}: conflict: {mac.hex(':')} has this address too")
            self._probe_at = now + PROBE_SECONDS
        if self._defence.due(now):
            self._announce(sock, now)

    def _announce(self, sock: AddressSocket, now: float) -> None:
        sock.announce()
        self._defence.announced(now)
        self._announced += 1
        self._announce_at = now + (BURST_SECONDS if self._announced < BURST else REPEAT_SECONDS)

    def _begin_burst(self, now: float) -> None:
        self._announced = 0
        self._announce_at = now

    def _pause(self, now: float) -> float:
        """Seconds until there is something to do without news."""
        if self._lost_at is not None:
            return min(RETRY_SECONDS, self._lost_at + LOST_SECONDS - now)
        due = min(self._announce_at, self._probe_at) - now
        # A rival is heard now and then, so that one who never stops talking takes no time.
        return min(due, RETRY_SECONDS) if self._defence.rival else due

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _say(self, trouble: str) -> None:
        if trouble != self._trouble:
            warn(f"VIP {self._vip}: {trouble}")
            self._trouble = trouble

    def _show(self) -> None:
        """The unit's STATUS=, when it changed."""
        status = f"{self._vip.address} on {self._vip.interface}"
        if self._trouble:
            status += f": {self._trouble}"
        elif self._defence.rival:
            status += f": conflict with {self._defence.rival.hex(':')}"
        if status != self._shown:
            tell(f"STATUS={status}")
            self._shown = status


def main(arguments: list[str]) -> int:
    """`NAME ADDRESS PREFIX INTERFACE`: it was added and announced once already.

    Exit code 0 says that the address is gone; anything else leaves that to
    `ha-vip --remove`.
    """
    stop = StopRequest()
    vip = Vip.parse(arguments)
    keeper = Keeper(vip, announced=1)
    if trouble := keeper.keep(stop):
        error(f"VIP {vip}: {trouble}, for {LOST_SECONDS:g} s: given up here")
        return EXIT_UNAVAILABLE
    tell("STOPPING=1", f"STATUS=giving back {vip.address}")
    if not keeper.give_back():
        error(f"VIP {vip}: could not be removed")
        return 1
    info(f"VIP {vip}: given back")
    return 0
