# SPDX-License-Identifier: Apache-2.0
"""Looking for the peer: on every link, in their order, until one works.

When the link that carries the stream dies, the next one takes over: the stream ends when
nothing came over it for `detect`, writes wait, and a new one begins where a link works.

A primary wants a stream. Whoever has none knocks several times within `detect`, so that both
know whether the other's replicator lives: a refusal is a sign of life, too.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from haoperator.replica import frames, handshake, wire
from haoperator.replica._hotpath import Channel
from haoperator.replica.handshake import HandshakeError, LinkFailed, Meeting
from haoperator.replica.settings import LinkPath, Settings
from haoperator.replica.sockets import reach

OUTDATED_SECONDS = 5.0
"""After a standby could not apply something: what ailed it is likely to be there still, and
each new stream begins with a comparison of everything."""
FAILED_SECONDS = 5.0
"""How long a link that failed stands behind the others: it may still connect, and carry nothing
that is larger than a greeting."""
STEADY_SECONDS = 1.0
"""A stream that lasted so long did not end because of what it began with: writes wait, so
the next one is begun at once."""

MODES = ("whole", "noted", "synced")
"""How a standby takes a stream (acceptance.Verdict.mode)."""

log = logging.getLogger(__name__)


class Owner(Protocol):
    """The engine, as the connector uses it."""

    @property
    def wants_stream(self) -> bool: ...
    @property
    def wants_knock(self) -> bool: ...
    def peer_answers(self) -> None: ...
    def hello(self) -> dict[str, Any]: ...
    def stream_begins(self, meeting: Meeting) -> bool: ...
    def stream_ended(self, *, closed: bool) -> None: ...
    def receive(self) -> wire.Received: ...
    def hashes(self, seq: int, hashes: bytes) -> None: ...
    def marks(self, marks: frames.Marks) -> None: ...
    def checked(self, seq: int, checked: frames.Checked) -> None: ...
    def refused(self, reason: str) -> None: ...


class Connector:
    """One thread that holds the stream to the standby while this node is primary."""

    def __init__(self, settings: Settings, owner: Owner) -> None:
        self._settings = settings
        self._owner = owner
        self._wake = threading.Event()
        self._channel: Channel | None = None
        self._not_before = 0.0
        self._failed: dict[LinkPath, float] = {}
        """When a link failed last."""

    def start(self) -> None:
        threading.Thread(target=self._serve, name="connect", daemon=True).start()

    def wake(self) -> None:
        """Something changed: look now."""
        self._wake.set()

    def disconnect(self) -> None:
        """End the present connection, if there is one; another is tried."""
        channel = self._channel
        if channel is not None:
            channel.shut()

    def _serve(self) -> None:
        pause = 0.0
        while True:
            self._wake.wait(pause)
            self._wake.clear()
            try:
                pause = self._look()
            except Exception:
                log.exception("the stream to the peer failed")
                pause = self._settings.pulse_seconds

    def _look(self) -> float:
        """Ask the peer for what is wanted. Returns how long to wait before the next time."""
        owner = self._owner
        streaming = owner.wants_stream and time.monotonic() >= self._not_before
        if not streaming and not owner.wants_knock:
            return self._settings.pulse_seconds
        try:
            link, meeting = self._meet(owner.hello if streaming else lambda: {"knock": True})
        except HandshakeError as err:
            owner.refused(str(err))
            return self._settings.pulse_seconds
        except OSError:
            return self._settings.retry_seconds if streaming else self._settings.pulse_seconds
        owner.peer_answers()
        if not streaming:
            meeting.channel.close()
            owner.refused("")
            return self._settings.pulse_seconds
        if meeting.answer.get("accept") not in MODES:
            meeting.channel.close()
            owner.refused(str(meeting.answer.get("reason", "no reason given")))
            return self._settings.pulse_seconds
        log.info("stream over %s, protocol version %d", link.name, meeting.agreement.version)
        return self._stream(link, meeting)

    def _meet(self, hello: Callable[[], dict[str, Any]]) -> tuple[LinkPath, Meeting]:
        """The peer, over the first link that carries a conversation.

        Raises HandshakeError; OSError when there is no connection at all.
        """
        links = self._links_by_hope()
        failure: LinkFailed | None = None
        while links:
            try:
                link, sock = reach(links, self._settings)
            except OSError as err:
                raise failure or err from None
            try:
                return link, handshake.as_primary(sock, self._settings, hello)
            except LinkFailed as err:
                self._failed[link] = time.monotonic()
                failure = err
                links.remove(link)
        raise failure or HandshakeError("there are no links")

    def _links_by_hope(self) -> list[LinkPath]:
        lately = time.monotonic() - FAILED_SECONDS
        return sorted(self._settings.links, key=lambda link: self._failed.get(link, 0.0) > lately)

    def _stream(self, link: LinkPath, meeting: Meeting) -> float:
        began = time.monotonic()
        self._channel = meeting.channel
        try:
            self._hold(link, meeting)
        finally:
            self._channel = None
        return 0.0 if time.monotonic() - began > STEADY_SECONDS else self._settings.retry_seconds

    def _hold(self, link: LinkPath, meeting: Meeting) -> None:
        if not self._owner.stream_begins(meeting):
            meeting.channel.close()
            return
        closed = False
        try:
            while True:
                type_number, _, seq, _, payload = self._owner.receive()
                frame = wire.from_peer(type_number, payload)
                if isinstance(frame, frames.Hashes):
                    self._owner.hashes(seq, frame.hashes)
                elif isinstance(frame, frames.Marks):
                    self._owner.marks(frame)
                elif isinstance(frame, frames.Checked):
                    self._owner.checked(seq, frame)
                elif isinstance(frame, frames.Nack):
                    log.error("the standby is outdated: %s", frame.reason.decode(errors="replace"))
                    self._not_before = time.monotonic() + OUTDATED_SECONDS
                    return
        except wire.Rubbish as err:
            log.error("the standby sent rubbish, cut off: %s", err)
        except OSError as err:
            log.info("the stream to the standby ended: %s", err.strerror)
            closed = err.errno == errno.ECONNRESET
            if not closed:
                self._failed[link] = time.monotonic()
        finally:
            meeting.channel.shut()
            self._owner.stream_ended(closed=closed)
