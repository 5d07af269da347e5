# SPDX-License-Identifier: Apache-2.0
"""The heartbeat process: sockets, timers and the bus around the pure protocol.

The beats depend on nothing but the network and the clock: a bus that is away
delays no packet, and nothing here touches a disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import time
from functools import partial

from haoperator.heartbeat.interface import BUS_NAME, OBJECT_PATH, HeartbeatInterface
from haoperator.heartbeat.link import PORT, Link
from haoperator.heartbeat.liveness import Liveness
from haoperator.heartbeat.packet import Codec, Packet, Rejected
from haoperator.heartbeat.probe import VipProbe
from haoperator.heartbeat.session import Admission, Session
from haoperator.heartbeat.witness import Witness
from haoperator.systemd import notify
from haoperator.systemd.bus import Endpoint
from tomlconfig.model import Config

REPEAT_COMPLAINT_SECONDS = 10.0

log = logging.getLogger(__name__)


class Daemon:
    """One life of the heartbeat. `key` is derived from the cluster's secret."""

    def __init__(self, config: Config, node: str, key: bytes, port: int = PORT) -> None:
        peer = config.peer_of(node)
        now = time.monotonic()
        self._node = node
        self._interval = config.timing.heartbeat
        self._codec = Codec(config.cluster.name, key)
        self._incarnation = os.urandom(8)
        self._session = Session(peer, self._incarnation)
        self._links = [
            Link(link.name, index, link.addresses[node], link.addresses[peer], port)
            for index, link in enumerate(config.links)
        ]
        names = [link.name for link in config.links]
        self._liveness = Liveness(names, config.timing.detect, self._interval, now)
        self._witness = Witness(config.witness, config.timing.detect, self._answered)
        self._probe = VipProbe(config.vips, config.timing.detect, self._answered)
        self._status = b""
        self._status_until = math.inf
        self._peer_status = b""
        self._sequence = 0
        self._complained_at: float | None = None
        self._beat_made = asyncio.Event()
        self._judging: asyncio.TimerHandle | None = None
        self._interface = HeartbeatInterface(self.publish, self._evidence)
        self._interface.announce(Links=dict.fromkeys(names, False))

    async def run(self) -> None:
        """Beat for ever. Raises `NameTaken` if another heartbeat owns the bus name."""
        endpoint = Endpoint(BUS_NAME, {OBJECT_PATH: [self._interface]})
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._beat_for_ever())
                group.create_task(self._witness.ask_for_ever())
                group.create_task(self._probe.ask_for_ever())
                group.create_task(endpoint.run())
                group.create_task(notify.prove_alive(self._next_beat))
        finally:
            for link in self._links:
                self._close(link)

    def publish(self, status: str, lifetime: float) -> None:
        """Tell the peer this from now on, at once, for `lifetime` seconds (0: to the end) unless
        it is repeated before. Raises ValueError if it is too long.

        Who does not repeat it hangs or is dead, and the peer must not count on what it said.
        """
        encoded = status.encode()
        self._codec.encode(self._packet(self._links[0], encoded))
        self._status_until = time.monotonic() + lifetime if lifetime else math.inf
        if encoded != self._status:
            self._status = encoded
            self._beat()

    async def _next_beat(self) -> None:
        self._beat_made.clear()
        await self._beat_made.wait()

    async def _beat_for_ever(self) -> None:
        self._schedule_judgement()
        due = time.monotonic()
        while True:
            now = time.monotonic()
            self._liveness.ran(now)
            for link in self._links:
                if link.open() and link.socket is not None:
                    loop = asyncio.get_running_loop()
                    loop.add_reader(link.socket, partial(self._drain, link))
            self._beat()
            self._announce_levels(now)
            self._beat_made.set()
            # A fixed grid; beats that were missed are not caught up.
            due = max(due + self._interval, now)
            await asyncio.sleep(due - time.monotonic())

    def _beat(self) -> None:
        if self._status and time.monotonic() > self._status_until:
            log.warning("the operator is not heard any more: its status is withdrawn")
            self._status = b""
        self._sequence += 1
        for link in self._links:
            self._send(link, self._packet(link, self._status))

    def _packet(self, link: Link, status: bytes, echo: bytes | None = None) -> Packet:
        return Packet(
            sender=self._node,
            incarnation=self._incarnation,
            echo=self._session.peer_incarnation if echo is None else echo,
            sequence=self._sequence,
            link=link.index,
            status=status,
        )

    def _send(self, link: Link, packet: Packet) -> None:
        if not link.send(self._codec.encode(packet)):
            self._close(link)

    def _close(self, link: Link) -> None:
        if link.socket is not None:
            with contextlib.suppress(RuntimeError):  # no loop any more
                asyncio.get_running_loop().remove_reader(link.socket)
            link.close()

    def _drain(self, link: Link) -> None:
        while (datagram := link.receive()) is not None:
            try:
                packet = self._codec.decode(datagram)
            except Rejected as err:
                self._complain(link, str(err))
                continue
            known = self._session.peer_incarnation
            match self._session.admit(packet, link.index):
                case Admission.NEWEST:
                    self._heard(link, packet.status)
                    if known != self._session.peer_incarnation:
                        self._beat()  # carries our echo, so that the peer hears us at once
                case Admission.COPY:
                    self._heard(link, self._peer_status)
                case Admission.STRANGER:
                    self._sequence += 1
                    self._send(link, self._packet(link, self._status, packet.incarnation))
                case Admission.STALE:
                    pass
                case Admission.FOREIGN:
                    self._complain(link, f"a packet of {packet.sender} on link {packet.link}")

    def _heard(self, link: Link, status: bytes) -> None:
        now = time.monotonic()
        again = self._liveness.heard(link.name, now)
        if not (again or status != self._peer_status):
            return
        self._peer_status = status
        text = status.decode(errors="replace")
        if again:
            log.info("peer heard on link %s", link.name)
            self._schedule_judgement()
        self._announce_levels(now)
        self._interface.PeerHeard(text)

    def _schedule_judgement(self) -> None:
        if self._judging is not None:
            self._judging.cancel()
            self._judging = None
        if (deadline := self._liveness.deadline) is not None:
            self._judging = asyncio.get_running_loop().call_at(deadline, self._judge)

    def _judge(self) -> None:
        # What arrived while this process did something else is evidence: read it first.
        for link in self._links:
            self._drain(link)
        now = time.monotonic()
        self._probe.drain(now)
        self._liveness.ran(now)
        if self._liveness.judge(now):
            log.warning("peer silent on all links")
            self._announce_levels(now)
            self._interface.PeerSilent()
        self._schedule_judgement()

    def _announce_levels(self, now: float) -> None:
        self._interface.announce(
            PeerReachable=self._liveness.reachable,
            PeerIsSilent=self._liveness.silent,
            PeerStatus=self._peer_status.decode(errors="replace"),
            Links=self._liveness.links(now),
            Witness=str(self._witness.reach(now)),
            VipProbe=str(self._probe.reply(now)),
        )

    def _answered(self) -> None:
        self._announce_levels(time.monotonic())

    def _evidence(self) -> str:
        now = time.monotonic()
        ages = self._liveness.ages(now)
        links = [
            {"name": link.name, "address": link.peer, "age": ages[link.name]}
            for link in self._links
        ]
        witnesses, vips = self._witness.evidence(now), self._probe.evidence(now)
        return json.dumps({"links": links, "witnesses": witnesses, "vips": vips})

    def _complain(self, link: Link, reason: str) -> None:
        now = time.monotonic()
        if self._complained_at is None or now - self._complained_at > REPEAT_COMPLAINT_SECONDS:
            self._complained_at = now
            log.warning("link %s: packet refused: %s", link.name, reason)
