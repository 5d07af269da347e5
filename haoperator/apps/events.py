# SPDX-License-Identifier: Apache-2.0
"""The stream of dockerd's events, for processes that import next to nothing.

HTTP/1.0: one line of JSON for each event, until dockerd ends it.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping, Sequence

from haoperator.apps import dockerd
from haoperator.apps.docker_socket import SOCKET

ANSWER_SECONDS = 5.0
MAX_LINE_BYTES = 1 << 20
OVERLAP_SECONDS = 1
"""How far the stream reaches back, so that nothing falls between question and answer."""


class Events:
    """Those that `filters` choose, across restarts of dockerd.

    Poll `descriptors` for at most `patience` seconds, then call `lost_or_found` and
    `lines`. `connected` tells whether dockerd is there.
    """

    def __init__(self, filters: Mapping[str, Sequence[str]]) -> None:
        self._filters = _quoted(json.dumps(dict(filters)))
        self._socket: socket.socket | None = None
        self._pending = b""
        self._lost = False
        self._next_try = 0.0

    @property
    def connected(self) -> bool:
        return self._socket is not None

    @property
    def descriptors(self) -> list[int]:
        return [] if self._socket is None else [self._socket.fileno()]

    @property
    def patience(self) -> float | None:
        """After so long dockerd is looked for again; None while it is there."""
        if self._socket is not None:
            return None
        return max(0.0, self._next_try - time.monotonic())

    def lost_or_found(self) -> bool:
        """Look for a dockerd that is away, if it is time to. True if it went or came since
        the last call; whoever finds it asks how everything stands."""
        if self._lost:
            self._lost = False
            return True
        if self._socket is not None or time.monotonic() < self._next_try:
            return False
        self._next_try = time.monotonic() + dockerd.LOOK_SECONDS
        if not dockerd.runs():
            return False
        try:
            self._connect()
        except OSError:
            self.close()
            return False
        return True

    def lines(self) -> list[bytes]:
        """The events that have come, each a document of JSON."""
        if self._socket is None:
            return []
        try:
            while data := self._socket.recv(65536):
                self._pending += data
                if len(self._pending) > MAX_LINE_BYTES:
                    break
            self.close()
            self._lost = True
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            self._lost = True
        *whole, self._pending = self._pending.split(b"\n")
        return [line for line in whole if line.strip()]

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._next_try = time.monotonic() + dockerd.LOOK_SECONDS

    def _connect(self) -> None:
        self._pending = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(ANSWER_SECONDS)
        self._socket.connect(SOCKET)
        since = int(time.time()) - OVERLAP_SECONDS
        path = f"/events?since={since}&filters={self._filters}"
        self._socket.sendall(f"GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = self._socket.recv(4096)
            if not data or len(answer) > MAX_LINE_BYTES:
                raise OSError("dockerd does not tell its events")
            answer += data
        head, _, self._pending = answer.partition(b"\r\n\r\n")
        if head.split(None, 2)[1:2] != [b"200"]:
            raise OSError("dockerd does not tell its events")
        self._socket.settimeout(0)


def _quoted(text: str) -> str:
    """For a URL, as urllib.parse.quote, which would take another megabyte."""
    return "".join(
        chr(byte) if chr(byte).isalnum() and byte < 128 else f"%{byte:02X}"
        for byte in text.encode()
    )
