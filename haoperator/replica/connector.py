# SPDX-License-Identifier: Apache-2.0
"""Looking for the peer: on every link, in their order, until one works.

A primary wants a stream. Whoever has none knocks twice a second, so that both know
whether the other's replicator lives: a refusal is a sign of life, too.
"""

from __future__ import annotations

import errno
import logging
import socket
import threading
import time
from typing import Any, Protocol

from haoperator.replica import frames, handshake, wire
from haoperator.replica.handshake import HandshakeError
from haoperator.replica.settings import Settings
from haoperator.replica.sockets import connect, shut

RETRY_SECONDS = 0.2
KNOCK_SECONDS = 0.5
OUTDATED_SECONDS = 5.0
"""After a standby could not apply something: what ailed it is likely to be there still, and
each new stream begins with a comparison of everything."""

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
    def stream_begins(self, sock: socket.socket, mode: str) -> bool: ...
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
        self._sock: socket.socket | None = None
        self._not_before = 0.0

    def start(self) -> None:
        threading.Thread(target=self._serve, name="connect", daemon=True).start()

    def wake(self) -> None:
        """Something changed: look now."""
        self._wake.set()

    def disconnect(self) -> None:
        """End the present connection, if there is one; another is tried."""
        sock = self._sock
        if sock is not None:
            shut(sock)

    def _serve(self) -> None:
        pause = 0.0
        while True:
            self._wake.wait(pause)
            self._wake.clear()
            try:
                streaming = self._owner.wants_stream and time.monotonic() >= self._not_before
                answered = False
                if streaming or self._owner.wants_knock:
                    answered = self._try_links(streaming)
                pause = RETRY_SECONDS if streaming and not answered else KNOCK_SECONDS
            except Exception:
                log.exception("the stream to the peer failed")
                pause = KNOCK_SECONDS

    def _try_links(self, streaming: bool) -> bool:
        """True if the peer was reached and does not want a stream."""
        for link in self._settings.links:
            try:
                sock = connect(link, self._settings)
            except OSError:
                continue
            with sock:
                return self._greet(sock, streaming)
        return False

    def _greet(self, sock: socket.socket, streaming: bool) -> bool:
        hello = self._owner.hello() if streaming else {"knock": True}
        try:
            answer = handshake.as_primary(sock, self._settings.key, hello)
        except HandshakeError as err:
            self._owner.refused(str(err))
            return True
        self._owner.peer_answers()
        if not streaming:
            return True
        if answer.get("accept") not in MODES:
            self._owner.refused(str(answer.get("reason", "no reason given")))
            return True
        sock.settimeout(None)
        self._sock = sock
        try:
            self._hold(sock, str(answer["accept"]))
        finally:
            self._sock = None
        return False

    def _hold(self, sock: socket.socket, mode: str) -> None:
        if not self._owner.stream_begins(sock, mode):
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
        finally:
            shut(sock)
            self._owner.stream_ended(closed=closed)
