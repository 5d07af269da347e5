# SPDX-License-Identifier: Apache-2.0
"""A connection that is over, whatever happens on it, when its time is."""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

_PIECE_BYTES = 4096


class Conversation:
    """Each step raises OSError if it fails, TimeoutError if `timeout` seconds have passed
    since the beginning, ConnectionError if the other side went away too early."""

    def __init__(self, host: str, port: int, timeout: float) -> None:
        self._deadline = time.monotonic() + timeout
        self._socket = socket.create_connection((host, port), timeout)

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def encrypt(self, context: ssl.SSLContext, host: str) -> bytes:
        """Go on with TLS; the certificate of the other side, in DER."""
        self._hurry()
        encrypted = context.wrap_socket(self._socket, server_hostname=host)
        self._socket = encrypted
        return encrypted.getpeercert(binary_form=True) or b""

    def say(self, data: bytes) -> None:
        self._hurry()
        self._socket.sendall(data)

    def hear(self, size: int) -> bytes:
        """Exactly so many bytes."""
        heard = self.hear_until(lambda data: len(data) >= size, size)
        if len(heard) < size:
            raise ConnectionError("it hung up")
        return heard

    def hear_until(self, enough: Callable[[bytes], bool], most: int) -> bytes:
        """What comes until it is `enough`, `most` bytes or the end."""
        heard = b""
        while len(heard) < most and not enough(heard):
            self._hurry()
            piece = self._socket.recv(min(_PIECE_BYTES, most - len(heard)))
            if not piece:
                break
            heard += piece
        return heard

    def _hurry(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)


def host_and_port(target: str) -> tuple[str, int]:
    """Of `host:port` or `[address]:port`."""
    host, _, port = target.rpartition(":")
    return host.strip("[]"), int(port)


def reason(err: Exception, timeout: float) -> str:
    """Why there is no right answer, in words."""
    if isinstance(err, TimeoutError):
        return f"no answer within {timeout:g} s"
    return getattr(err, "strerror", None) or str(err) or type(err).__name__
