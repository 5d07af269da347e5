# SPDX-License-Identifier: Apache-2.0
"""TCP connections between the two replicators."""

from __future__ import annotations

import contextlib
import socket

from haoperator.replica.settings import LinkPath, Settings

CONNECT_SECONDS = 1.0
TCP_USER_TIMEOUT = 18
"""Not in every version of the socket module (tcp(7))."""


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def connect(link: LinkPath, settings: Settings) -> socket.socket:
    """A connection from our address on the link to the peer's. Raises OSError."""
    sock = socket.socket(family_of(link.peer), socket.SOCK_STREAM)
    try:
        sock.settimeout(CONNECT_SECONDS)
        sock.bind((link.own, 0))
        sock.connect((link.peer, settings.port))
        prepare(sock, settings)
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

    Silence ends a stream after `detect`; this is about a peer whose disk hangs.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 10 * settings.detect_ms)


def shut(sock: socket.socket) -> None:
    """Wake whoever waits on the socket; it may be closed already."""
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
