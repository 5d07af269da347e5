# SPDX-License-Identifier: Apache-2.0
"""The questions: does a URL answer, does a port accept, does a command succeed?

Each takes at most `timeout` seconds and never raises: whatever goes wrong is an
answer. Standard library only, and little of it: a checker lives as long as its
application.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from typing import TYPE_CHECKING

from haoperator.checkers.promise import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

OUTPUT_BYTES = 2000
SHOWN_CHARACTERS = 200


def tcp(target: str, timeout: float) -> Answer:
    """`host:port` accepts a connection."""
    host, _, port = target.rpartition(":")
    try:
        with _connected(host.strip("[]"), int(port), timeout):
            return Answer(True, f"{target} accepts connections")
    except OSError as err:
        return Answer(False, f"{target}: {_reason(err, timeout)}")


def http(target: str, timeout: float) -> Answer:
    """The URL answers with a status from 200 to 399; redirections are not followed.

    With https the certificate is not checked, as in Kubernetes: the question is
    whether the application serves, and not who it is.
    """
    from urllib.parse import urlsplit

    url = urlsplit(target)
    secure = url.scheme == "https"
    deadline = time.monotonic() + timeout
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {url.netloc.rpartition('@')[2]}\r\n"
        "User-Agent: haoperator\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    try:
        port = url.port or (443 if secure else 80)
        with _connected(url.hostname or "", port, timeout) as plain:
            sock = _encrypted(plain, url.hostname or "") if secure else plain
            with sock:
                sock.sendall(request.encode())
                line = _first_line(sock, deadline)
    except (OSError, ValueError) as err:
        return Answer(False, f"{target}: {_reason(err, timeout)}")
    words = line.split()
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
        return Answer(False, f"{target}: no HTTP answer")
    status = int(words[1])
    return Answer(200 <= status < 400, f"{target} answers {status}")


def command(target: str, timeout: float) -> Answer:
    """The command exits with 0. No shell; what is left of it is killed afterwards."""
    import shlex

    words = shlex.split(target)
    read, write = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(read, False)
    try:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, write, 1),
            (os.POSIX_SPAWN_DUP2, write, 2),
        ]
        pid = os.posix_spawn(
            words[0],
            words,
            os.environ,
            file_actions=actions,
            setsid=True,
            setsigdef=[signal.SIGPIPE],
        )
    except OSError as err:
        os.close(read)
        return Answer(False, f"{words[0]}: {err.strerror}")
    finally:
        os.close(write)
    try:
        output, in_time = _watch(pid, read, timeout)
    finally:
        os.close(read)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    said = output.decode(errors="replace").strip()[-SHOWN_CHARACTERS:]
    if not in_time:
        return Answer(False, f"{words[0]}: not done within {timeout:g} s")
    if code == 0:
        return Answer(True, f"{words[0]} succeeds")
    how = f"exit code {code}" if code > 0 else f"signal {-code}"
    return Answer(False, f"{words[0]}: {how}" + (f": {said}" if said else ""))


PROBES: dict[str, Callable[[str, float], Answer]] = {"http": http, "tcp": tcp, "exec": command}


def _connected(host: str, port: int, timeout: float) -> socket.socket:
    return socket.create_connection((host, port), timeout)


def _encrypted(plain: socket.socket, host: str) -> socket.socket:
    import ssl

    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain, server_hostname=host)


def _first_line(sock: socket.socket, deadline: float) -> bytes:
    data = b""
    while b"\n" not in data and len(data) < OUTPUT_BYTES:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        sock.settimeout(left)
        if not (more := sock.recv(OUTPUT_BYTES)):
            break
        data += more
    return data.split(b"\n", 1)[0]


def _watch(pid: int, pipe: int, timeout: float) -> tuple[bytes, bool]:
    """What the process wrote last, and whether it ended within `timeout`."""
    output = b""
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(pipe, select.POLLIN)
        deadline = time.monotonic() + timeout
        while True:
            ready = {fd for fd, _ in poll.poll(max(0.0, deadline - time.monotonic()) * 1000)}
            if pipe in ready:
                data = _read(pipe)
                output = (output + data)[-OUTPUT_BYTES:]
                if not data:
                    poll.unregister(pipe)
            if pidfd in ready:
                return (output + _read(pipe))[-OUTPUT_BYTES:], True
            if time.monotonic() >= deadline:
                return output, False
    finally:
        os.close(pidfd)


def _read(pipe: int) -> bytes:
    try:
        return os.read(pipe, OUTPUT_BYTES)
    except BlockingIOError:
        return b""


def _reason(err: Exception, timeout: float) -> str:
    if isinstance(err, TimeoutError):
        return f"no answer within {timeout:g} s"
    return getattr(err, "strerror", None) or str(err) or type(err).__name__
