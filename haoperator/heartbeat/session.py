# SPDX-License-Identifier: Apache-2.0
"""Which packets of the peer count: this life of it, and each of them once a link.

A packet proves who made it, not when. So a recording must not make a dead node
look alive:

- An *incarnation* (a random number for each life of a process) is accepted only if
  its packet echoes our own, which nobody knew before we started. A node that hears
  an unknown incarnation answers with an echo of it; the other then answers with an
  echo of ours: one round trip, and only at the start of a process.
- An incarnation that was replaced never comes back.
- Within an incarnation, sequence numbers grow on every link, and the link is part
  of what is authenticated: a copy on another link proves that link, not this one.

What remains: somebody in the path may hold packets back and deliver each once,
later, as any bad network may.
"""

from __future__ import annotations

from enum import StrEnum

from haoperator.heartbeat.packet import NOBODY, Packet


class Admission(StrEnum):
    """What a packet is worth."""

    NEWEST = "newest"
    """Proves the link, and its status is the newest."""
    COPY = "copy"
    """Proves the link; the status came on another one already."""
    STRANGER = "stranger"
    """Proves nothing yet: its incarnation must first echo ours. Answer it."""
    STALE = "stale"
    """Proves nothing: a replay, or overtaken on its own link."""
    FOREIGN = "foreign"
    """Not from the peer, or on a link it does not belong to."""


class Session:
    """What this process knows of the peer's life. `peer_incarnation` is its echo."""

    def __init__(self, peer: str, own_incarnation: bytes) -> None:
        self.peer_incarnation = NOBODY
        self._peer = peer
        self._own = own_incarnation
        self._retired: set[bytes] = set()
        self._newest = -1
        self._newest_on: dict[int, int] = {}

    def admit(self, packet: Packet, link: int) -> Admission:
        """Judge an authentic packet that arrived on the link with this index."""
        if packet.sender != self._peer or packet.link != link:
            return Admission.FOREIGN
        if packet.incarnation != self.peer_incarnation:
            if packet.incarnation in self._retired:
                return Admission.STALE
            if packet.echo != self._own:
                return Admission.STRANGER
            self._begin(packet.incarnation)
        if packet.sequence <= self._newest_on.get(link, -1):
            return Admission.STALE
        self._newest_on[link] = packet.sequence
        if packet.sequence <= self._newest:
            return Admission.COPY
        self._newest = packet.sequence
        return Admission.NEWEST

    def _begin(self, incarnation: bytes) -> None:
        if self.peer_incarnation != NOBODY:
            self._retired.add(self.peer_incarnation)
        self.peer_incarnation = incarnation
        self._newest = -1
        self._newest_on.clear()
