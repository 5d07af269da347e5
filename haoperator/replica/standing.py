# SPDX-License-Identifier: Apache-2.0
"""How this node stands: role, stream, record, and what it may prove to its peer.

All of it changes under `decide` alone, and the record is durable before anything that
it promises can be observed.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from haoperator.core.record import DataRecord
from haoperator.core.status import Role, Stream
from haoperator.replica.record import RecordStore

log = logging.getLogger(__name__)


class Refused(Exception):
    """The replicator does not do what the operator asked for. Nothing has changed."""


class Standing:
    """The state that the primary's side, the standby's side and the commands share."""

    def __init__(self, store: RecordStore, changed: Callable[[], None]) -> None:
        self.decide = threading.RLock()
        self.role = Role.SECONDARY
        self.stream = Stream.DISCONNECTED
        self.refusal = ""
        """Why the peer does not replicate with us, if it does not."""
        self.token = b""
        """From the last hand-over: who holds it has missed nothing since."""
        self.moved = 0.0
        """When the stream last changed; by time.monotonic."""
        self.heard = 0.0
        """When the peer proved that it lives, outside of a stream; by time.monotonic."""
        self.changed = changed
        """Tells that any of this is different; callable in any thread."""
        self._store = store

    @property
    def record(self) -> DataRecord:
        return self._store.record

    def put(self, **changes: Any) -> None:
        """Change fields of the record, durably."""
        self._store.put(replace(self._store.record, **changes))

    def give_up(self) -> None:
        """This copy is not complete any more, durably where the disk takes it.

        Where it does not, this process goes by it, and so does the primary. A later process
        believes the old record, and may: without having been told again that it is complete,
        it does not take over (`State.promotable`).
        """
        try:
            self._store.give_up(replace(self._store.record, up_to_date=False))
        except OSError as err:
            log.error("it cannot be stored that this copy is outdated: %s", err)

    def begin(self, generation: str, deadline: float) -> None:
        """Begin a generation durably, before the deadline or not at all. Raises Refused.

        Nothing has been written in it yet when it comes too late, so it is taken back.
        """
        former = self.record
        late = Refused("the permission to go on without the peer has expired")
        if time.monotonic() > deadline:
            raise late
        self._store.put(former.begin(generation))
        if time.monotonic() > deadline:
            self._store.put(former)
            raise late
        self.token = b""

    def say(self, role: Role | None = None, stream: Stream | None = None) -> None:
        """Take a new role or stream state, and announce it."""
        before = (self.role, self.stream)
        if stream is not None and stream is not self.stream:
            self.moved = time.monotonic()
        self.role = self.role if role is None else role
        self.stream = self.stream if stream is None else stream
        if before != (self.role, self.stream):
            log.info("%s, stream %s (was %s, %s)", self.role, self.stream, *before)
        self.changed()

    def peer_lives(self) -> None:
        """The peer's replicator has just proved that it lives."""
        self.heard = time.monotonic()
        self.changed()
