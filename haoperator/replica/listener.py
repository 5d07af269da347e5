# SPDX-License-Identifier: Apache-2.0
"""The replication port of this node: both nodes listen, always.

Nobody who has not proved to hold the key gets further than a few bounded reads, and no
more than a handful of such strangers are heard at a time.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
from collections.abc import Callable
from typing import Any

from haoperator.replica import handshake
from haoperator.replica.handshake import HandshakeError
from haoperator.replica.settings import Settings
from haoperator.replica.sockets import listen, prepare

MOST_STRANGERS = 8
RETRY_SECONDS = 0.5
"""An address may not be there yet when the machine boots."""

log = logging.getLogger(__name__)

Greeted = Callable[[socket.socket, dict[str, Any]], None]


class Listener:
    """Accepts connections and hands those of the peer to `greeted`, in a thread of its own."""

    def __init__(self, settings: Settings, greeted: Greeted) -> None:
        self._settings = settings
        self._greeted = greeted
        self._strangers = threading.BoundedSemaphore(MOST_STRANGERS)
        self._selector = selectors.DefaultSelector()
        self._missing = [link.own for link in settings.links]
        self._complained = False

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
            sock, _ = listening.accept()
        except OSError:
            return
        if not self._strangers.acquire(blocking=False):
            sock.close()
            return
        threading.Thread(target=self._greet, args=(sock,), name="greet", daemon=True).start()

    def _greet(self, sock: socket.socket) -> None:
        try:
            prepare(sock, self._settings)
            said = handshake.as_standby(sock, self._settings.key)
        except (HandshakeError, OSError) as err:
            log.warning("connection from %s refused: %s", _address(sock), err)
            sock.close()
            return
        finally:
            self._strangers.release()
        self._greeted(sock, said)


def _address(sock: socket.socket) -> str:
    try:
        return str(sock.getpeername()[0])
    except OSError:
        return "somebody"
