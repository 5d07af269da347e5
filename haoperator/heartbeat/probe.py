# SPDX-License-Identifier: Apache-2.0
"""The probe of the VIPs: does another machine have one of them, on the clients' network?

When only the paths of the heartbeat are cut, the primary still answers there. The question
is an ARP probe or its IPv6 counterpart (`haoperator.lean.resolution`), and every claim
to a VIP by another machine is an answer, the primary's own announcements too.

Asked with the witness's period, and as fresh as its answers: an answer that counts
when the peer is declared silent was given after the paths were cut.
"""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections.abc import Callable, Sequence
from enum import StrEnum

from haoperator.heartbeat.witness import freshness, period
from haoperator.lean import interface, netlink
from haoperator.lean.address_socket import AddressSocket
from tomlconfig.model import Vip


class Reply(StrEnum):
    NONE = "none"
    """There was nothing to ask: no VIP is configured, this node has them all itself, or their
    interfaces cannot be used. Or the questions are too recent for silence to mean anything."""
    ANSWERED = "answered"
    UNANSWERED = "unanswered"


class Target:
    """One VIP. Its socket is opened with the first question that finds the interface usable.
    `heard_at` is when another machine last claimed it."""

    def __init__(self, vip: Vip) -> None:
        self.name = vip.name
        self.heard_at: float | None = None
        self._packed = vip.address.ip.packed
        self._family = socket.AF_INET6 if vip.address.version == 6 else socket.AF_INET
        self._interface = vip.interface
        self._socket: AddressSocket | None = None

    def ask(self, readiness: select.epoll) -> bool:
        """Send one probe. False if there is nobody to ask, or this node has the address."""
        try:
            if interface.trouble(self._interface):
                return False
            index = socket.if_nametoindex(self._interface)
            if any(own == self._packed for _, own in netlink.addresses(self._family, index)):
                return False
            if self._socket is not None and self._socket.stale:
                self.close()
            if self._socket is None:
                self._socket = AddressSocket(self._interface, self._packed)
                readiness.register(self._socket, select.EPOLLIN)
            if not self._socket.mac:
                return False
            self._socket.probe()
        except OSError:
            self.close()  # down or gone between two lines; the next question looks again
            return False
        return True

    def answered(self) -> bool:
        """Whether another machine's claim waits to be read; reads all of them."""
        try:
            return self._socket is not None and bool(self._socket.claimants())
        except OSError:
            self.close()
            return False

    def close(self) -> None:
        """Leaves the epoll by itself."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class VipProbe:
    """Asks on behalf of a node that does not hold the VIPs. `answered` is called after answers.
    Time is CLOCK_MONOTONIC."""

    def __init__(self, vips: Sequence[Vip], detect: float, answered: Callable[[], None]) -> None:
        self._targets = [Target(vip) for vip in vips]
        self._freshness = freshness(detect)
        self._period = period(detect)
        self._answered = answered
        self._readiness = select.epoll()
        self._heard: Target | None = None
        self._asked_at: float | None = None
        self._asking_since: float | None = None

    async def ask_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(self, self._hear)
        try:
            while self._targets:
                self.ask(time.monotonic())
                await asyncio.sleep(self._period)
        finally:
            loop.remove_reader(self)
            self.close()

    def fileno(self) -> int:
        """Readable when an answer waits, on whatever socket there is at the moment."""
        return self._readiness.fileno()

    def close(self) -> None:
        for target in self._targets:
            target.close()
        self._readiness.close()

    def ask(self, now: float) -> None:
        """One question. One VIP that answers is enough: as long as one does, it is asked alone,
        for the sake of the segment, where some switches count such frames."""
        if self._asked_at is None or now - self._asked_at > 2 * self._period:
            self._asking_since = None  # nobody asked for a while: silence began just now
        self._asked_at = now
        if not self._ask(now):
            self._asking_since = None
        elif self._asking_since is None:
            self._asking_since = now

    def _ask(self, now: float) -> bool:
        """Whether there was anybody to ask."""
        answers = self._heard_since(now - 2 * self._period)
        if answers is not None and answers.ask(self._readiness):
            return True
        asked = [target.ask(self._readiness) for target in self._targets]
        return any(asked)

    def drain(self, now: float) -> None:
        """Read the answers that wait."""
        for target in self._targets:
            if target.answered():
                self._heard, target.heard_at = target, now

    def reply(self, now: float) -> Reply:
        """The level that the operator sees. Read the answers first."""
        if self._asking_since is None or self._asked_at is None:
            return Reply.NONE
        if self._heard_since(now - self._freshness):
            return Reply.ANSWERED
        late = now - self._asked_at > 2 * self._period
        if late or now - self._asking_since < self._freshness:
            return Reply.NONE
        return Reply.UNANSWERED

    def evidence(self, now: float) -> list[dict[str, object]]:
        """Each VIP with the seconds since another machine claimed it, None for never."""
        return [
            {"name": each.name, "age": None if each.heard_at is None else now - each.heard_at}
            for each in self._targets
        ]

    def _hear(self) -> None:
        self.drain(time.monotonic())
        self._answered()

    def _heard_since(self, moment: float) -> Target | None:
        """The VIP that answered last, unless that was before `moment`."""
        heard = self._heard
        return heard if heard and heard.heard_at and heard.heard_at >= moment else None
