# SPDX-License-Identifier: Apache-2.0
"""The replication port of this node: both nodes listen, always.

Nobody who has not proved to hold the key gets further than the TLS handshake, which is
bounded in bytes and time, and no more than a handful of such strangers are heard at once.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
from collections.abc import Callable

from haoperator.replica import handshake
from haoperator.replica.handshake import HandshakeError, Meeting
from haoperator.replica.settings import Settings
from haoperator.replica.sockets import listen, prepare

MOST_STRANGERS = 8
RETRY_SECONDS = 0.5
"""An address may not be there yet when the machine boots."""

log = logging.getLogger(__name__)

Greeted = Callable[[Meeting], None]


class Listener:
    """Accepts connections and hands those of the peer to `greeted`, in a thread of its own."""

    def __init__(self, settings: Settings, greeted: Greeted) -> None:
        self._settings = settings
        self._greeted = greeted
        self._strangers = threading.BoundedSemaphore(MOST_STRANGERS)
        self._selector = selectors.DefaultSelector()
        self._missing = [link.own for link in settings.links]
        self._complained = False
        self._complaint = ""

    def start(self) -> None:
        threading.Thread(target=self._serve, name="listen", daemon=True).start()

    def _serve(self) -> None:
        while True:
            self._open_missing()
            for key, _ in self._selector.select(RETRY_SECONDS if self._missing else None):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                self._accept(sock)

    def _open_missing(self) -> None:
        for address in list(self._missing):
            try:
                sock = listen(address, self._settings)
            except OSError as err:
                if not self._complained:
                    log.warning(
                        "%s port %d: %s, trying again",
                        address,
                        self._settings.port,
                        err.strerror,
                    )
                self._complained = True
            else:
                self._selector.register(sock, selectors.EVENT_READ)
                self._missing.remove(address)

    def _accept(self, listening: socket.socket) -> None:
        try:
            sock, address = listening.accept()
        except OSError:
            return
        if not self._strangers.acquire(blocking=False):
            sock.close()
            return
        threading.Thread(
            target=self._greet, args=(sock, address[0]), name="greet", daemon=True
        ).start()

    def _greet(self, sock: socket.socket, address: str) -> None:
        try:
            with sock:
                prepare(sock, self._settings)
                meeting = handshake.as_standby(sock, self._settings)
        except (HandshakeError, OSError) as err:
            self._complain(f"connection from {address} refused: {err}")
            return
        finally:
            self._strangers.release()
        self._complaint = ""
        self._greeted(meeting)

    def _complain(self, complaint: str) -> None:
        """A peer with another key knocks several times a second: the same is said once."""
        if complaint != self._complaint:
            log.warning("%s", complaint)
        self._complaint = complaint
