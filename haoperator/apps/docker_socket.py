# SPDX-License-Identifier: Apache-2.0
"""The few questions to dockerd that a waiting process has, without the SDK.

HTTP/1.0 on the engine's socket: the answer ends where the connection ends.
"""

from __future__ import annotations

import json
import socket
import time
from typing import Any

SOCKET = "/run/docker.sock"
STOP_MARGIN_SECONDS = 10
"""What `docker stop` may take on top of its grace, before dockerd counts as stuck."""
MAX_ANSWER_BYTES = 4 * 1024 * 1024


def request(method: str, path: str, timeout: float, body: str = "") -> tuple[int, bytes]:
    """Status and body. Raises OSError if there is no whole answer within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(timeout)
        sock.connect(SOCKET)
        kind = "Content-Type: application/json\r\n" if body else ""
        fields = f"Host: docker\r\n{kind}Content-Length: {len(body.encode())}"
        sock.sendall(f"{method} {path} HTTP/1.0\r\n{fields}\r\n\r\n{body}".encode())
        answer = b""
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or len(answer) > MAX_ANSWER_BYTES:
                raise TimeoutError(f"no whole answer to {method} {path}")
            sock.settimeout(left)
            if not (data := sock.recv(65536)):
                break
            answer += data
    head, _, content = answer.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    if len(words) < 2 or not words[1].isdigit():
        raise OSError(f"unintelligible answer to {method} {path}")
    return int(words[1]), content


def document(path: str, timeout: float) -> Any:
    """What dockerd answers to a GET. Raises OSError, also where it answers with an error."""
    status, body = request("GET", path, timeout)
    if status != 200:
        raise OSError(f"dockerd answers {status} to {path}")
    try:
        return json.loads(body)
    except ValueError as err:
        raise OSError(f"unintelligible answer to {path}") from err


def answers(timeout: float) -> bool:
    """Whether dockerd is there and not stuck."""
    try:
        return request("GET", "/_ping", timeout)[0] == 200
    except OSError:
        return False


def stop(container: str, grace: int) -> bool:
    """`docker stop`. True if it does not run afterwards (or is not there at all)."""
    status, _ = request(
        "POST", f"/containers/{container}/stop?t={grace}", grace + STOP_MARGIN_SECONDS
    )
    return status in (204, 304, 404)


def state(container: str, timeout: float) -> dict[str, Any]:
    """`docker inspect --format '{{json .State}}'`. Raises OSError."""
    found = document(f"/containers/{container}/json", timeout)
    try:
        return dict(found["State"])
    except (KeyError, TypeError, ValueError) as err:
        raise OSError("dockerd says nothing of the container's state") from err


def wait_for_end(container: str, timeout: float) -> None:
    """The kernel knows of a death first; returns when dockerd does. Raises OSError."""
    request("POST", f"/containers/{container}/wait", timeout)


def last_words(container: str, timeout: float, lines: int = 5) -> str:
    """The end of its log, empty if Docker does not give it."""
    path = f"/containers/{container}/logs?stdout=1&stderr=1&tail={lines}"
    try:
        status, body = request("GET", path, timeout)
    except OSError:
        return ""
    return demultiplexed(body).decode(errors="replace").strip() if status == 200 else ""


def demultiplexed(log: bytes) -> bytes:
    """A log without the headers that mark its streams; one of a terminal has none."""
    text = b""
    while len(log) >= 8 and log[0] in (0, 1, 2) and log[1:4] == b"\0\0\0":
        size = int.from_bytes(log[4:8], "big")
        text += log[8 : 8 + size]
        log = log[8 + size :]
    return text + log
