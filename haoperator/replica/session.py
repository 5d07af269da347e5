# SPDX-License-Identifier: Apache-2.0
"""One connection of a primary to this standby, after the handshake."""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from haoperator.replica import frames, wire
from haoperator.replica._hotpath import Applier, Channel
from haoperator.replica.branch import Branch
from haoperator.replica.hashing import HashPool
from haoperator.replica.incoming import Incoming
from haoperator.replica.matching import Unlike

FSYNC_THREADS = 8
"""As many as can wait on the primary: flushes of one disk that are asked for together are one."""
MARKS_PART = 256 * 1024

log = logging.getLogger(__name__)


class Owner(Protocol):
    """What the standby's side learns from a session. Each is durable when it returns."""

    def handed_over(self, session: StandbySession, token: bytes) -> None: ...
    def resynced(self, session: StandbySession, done: frames.Done) -> None: ...
    def settled(self, session: StandbySession) -> None: ...
    def progressed(
        self, session: StandbySession, directory: int, told: frames.Progress
    ) -> None: ...
    def failed(self, session: StandbySession, reason: str, *, unlike: bool) -> None: ...
    def ended(self, session: StandbySession, *, closed: bool) -> None: ...


class StandbySession:
    """Applies one primary's stream until it ends."""

    def __init__(
        self,
        channel: Channel,
        roots: Sequence[int],
        owner: Owner,
        *,
        tolerant: bool,
        partial: bool,
        detect_ms: int,
        branches: Sequence[Branch] = (),
    ) -> None:
        """`branches`: for each root the one that is to be kept, as it was; closed at the end."""
        self.keeps = bool(branches)
        self._channel = channel
        self._owner = owner
        self._detect_ms = detect_ms
        self.applier = Applier(channel)
        self._hashes = HashPool(self._failed)
        self._incoming = Incoming(
            self.applier,
            roots,
            self,
            self._hashes,
            tolerant=tolerant,
            partial=partial,
            branches=branches,
        )
        self._threads = [
            threading.Thread(target=self._guard, args=(work,), name=name, daemon=True)
            for name, work in [
                ("apply", self._apply),
                *((f"fsync/{n}", self.applier.fsync_work) for n in range(FSYNC_THREADS)),
            ]
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def pulse(self) -> None:
        """A sign of life for the primary."""
        with contextlib.suppress(OSError):
            self.applier.post(frames.Type.PING, 0, 0, b"")

    def tell_marks(self, packed: bytes) -> None:
        """What this side noted of its own changes, for the primary to compare."""
        with contextlib.suppress(OSError):
            for at in range(0, len(packed) or 1, MARKS_PART):
                last = int(at + MARKS_PART >= len(packed))
                part = frames.Marks(last, packed[at : at + MARKS_PART])
                self.applier.post(wire.type_of(part), 0, 0, wire.payload_of(part))

    def close(self) -> None:
        """End the session and wait until nothing of it changes anything. Not from its threads."""
        self.applier.close()
        for thread in self._threads:
            thread.join()
        self._channel.close()

    # Called by Incoming, in the applying thread.

    def handed_over(self, token: bytes) -> None:
        self._owner.handed_over(self, token)

    def resynced(self, done: frames.Done) -> None:
        self._owner.resynced(self, done)

    def settled(self) -> None:
        self._owner.settled(self)

    def progressed(self, directory: int, told: frames.Progress) -> None:
        self._owner.progressed(self, directory, told)

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except OSError as err:
            self._failed(err)

    def _failed(self, err: OSError) -> None:
        """Something could not be applied here: this copy stays behind from now on."""
        reason = err.strerror or str(err)
        self._owner.failed(self, reason, unlike=isinstance(err, Unlike))
        with contextlib.suppress(OSError):
            nack = frames.Nack(reason.encode(errors="replace")[:1000])
            self.applier.post(wire.type_of(nack), 0, 0, wire.payload_of(nack))
        self.applier.close()

    def _apply(self) -> None:
        closed = False
        try:
            while True:
                try:
                    received = self.applier.next(self._detect_ms)
                except OSError as err:
                    if err.errno in ENDINGS:
                        log.info("the stream from the primary ended: %s", err.strerror)
                        closed = err.errno == errno.ECONNRESET
                        return
                    if err.errno == errno.EPROTO:
                        raise wire.Rubbish("not a frame") from err
                    raise
                self._incoming.apply(received)
        except wire.Rubbish as err:
            log.error("the primary sent rubbish, cut off: %s", err)
        except OSError as err:
            self._failed(err)
        finally:
            self.applier.settle()
            self.applier.close()
            self._hashes.close()
            self._incoming.close()
            self._channel.shut()
            self._owner.ended(self, closed=closed)


ENDINGS = (
    errno.EBADMSG,
    errno.ETIMEDOUT,
    errno.ECONNRESET,
    errno.EPIPE,
    errno.ECONNABORTED,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ENETDOWN,
)
