# SPDX-License-Identifier: Apache-2.0
"""TCP connections between the two replicators."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from collections.abc import Sequence

from haoperator.replica.settings import LinkPath, Settings

HUNG_DISK_MS = 20_000
TCP_USER_TIMEOUT = 18
"""Not in every version of the socket module (tcp(7))."""


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def reach(links: Sequence[LinkPath], settings: Settings) -> tuple[LinkPath, socket.socket]:
    """A connection over the first link that has one, in their order. Raises OSError."""
    with _Race() as race:
        for link in links:
            race.enter(link, settings)
            last = link is links[-1]
            patience = settings.connect_seconds if last else settings.head_start_seconds
            if won := race.winner(patience):
                return won
        raise race.failure


class _Race:
    """Connections that are being made at the same time."""

    def __init__(self) -> None:
        self.failure = OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        """Why the last one that failed did."""
        self._trying: dict[socket.socket, LinkPath] = {}
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> _Race:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for sock in self._trying:
            sock.close()

    def enter(self, link: LinkPath, settings: Settings) -> None:
        try:
            sock = _begin(link, settings)
        except OSError as err:
            self.failure = err
        else:
            self._trying[sock] = link
            self._selector.register(sock, selectors.EVENT_WRITE)

    def winner(self, patience: float) -> tuple[LinkPath, socket.socket] | None:
        """The first to stand, within `patience` seconds; None at once when all have failed."""
        until = time.monotonic() + patience
        while self._trying and (left := until - time.monotonic()) > 0:
            ready = {key.fileobj for key, _ in self._selector.select(left)}
            for sock in [sock for sock in self._trying if sock in ready]:
                link = self._trying.pop(sock)
                self._selector.unregister(sock)
                error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not error:
                    return link, sock
                sock.close()
                self.failure = OSError(error, os.strerror(error))
        return None


def _begin(link: LinkPath, settings: Settings) -> socket.socket:
    """A connection that is being made from our address on the link to the peer's."""
    sock = socket.socket(family_of(link.peer), socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind((link.own, 0))
        prepare(sock, settings)
        error = sock.connect_ex((link.peer, settings.port))
        if error not in (0, errno.EINPROGRESS):
            raise OSError(error, os.strerror(error))
    except OSError:
        sock.close()
        raise
    return sock


def listen(address: str, settings: Settings) -> socket.socket:
    """A listening socket. Raises OSError while the address is not there yet."""
    sock = socket.socket(family_of(address), socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, settings.port))
        sock.listen(8)
    except OSError:
        sock.close()
        raise
    return sock


def prepare(sock: socket.socket, settings: Settings) -> None:
    """Small frames at once. A peer that is alive but takes nothing is given up in the end.

    Silence ends a stream after `detect`; this is about a peer whose disk hangs, which has
    nothing to do with how fast the network is.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(
        socket.IPPROTO_TCP, TCP_USER_TIMEOUT, max(HUNG_DISK_MS, 10 * settings.detect_ms)
    )
