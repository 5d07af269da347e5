# SPDX-License-Identifier: Apache-2.0
"""Witnesses that are asked over TCP: one that accepts a connection, or that speaks HTTP.

Each question takes a connection of its own. An *accepted* one counts, and any HTTP status
line. A refusal does not: a firewall on the way, or on this very node, refuses in the name of
hosts that it does not let us reach.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from urllib.parse import urlsplit

_STATUS_LINE = re.compile(rb"HTTP/\d(?:\.\d)? \d{3}")
_STATUS_LINE_BYTES = 12
_NO_LINGERING = struct.pack("ii", 1, 0)  # a reset at the end, and no TIME_WAIT is left (socket(7))


async def accepts(target: str) -> None:
    """Return when a connection to `target`, address:port, stands. Raises OSError."""
    with await _connected(f"//{target}"):
        pass


async def speaks_http(url: str) -> None:
    """Return when `url` was answered with a status, whatever it says. Raises OSError."""
    parts = urlsplit(url)
    question = (
        f"HEAD {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        "User-Agent: haoperator\r\nConnection: close\r\n\r\n"
    )
    with await _connected(url) as sock:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, question.encode())
        answer = b""
        while len(answer) < _STATUS_LINE_BYTES:
            if not (piece := await loop.sock_recv(sock, _STATUS_LINE_BYTES - len(answer))):
                raise ConnectionError("the answer ended early")
            answer += piece
        if not _STATUS_LINE.match(answer):
            raise ConnectionError("the answer is not HTTP")


async def _connected(url: str) -> socket.socket:
    parts = urlsplit(url)
    host = str(parts.hostname)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
        await asyncio.get_running_loop().sock_connect(sock, (host, parts.port or 80))
    except BaseException:
        sock.close()
        raise
    return sock
