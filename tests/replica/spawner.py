# SPDX-License-Identifier: Apache-2.0
"""Starts processes for the tests from a process that has no file of a mount open.

A fork of a test that has one would close it in the child, and wait there for the very
replicator that it is about to become.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class Process:
    """A process that somebody else is the parent of."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)

    @property
    def alive(self) -> bool:
        return not select.select([self._pidfd], [], [], 0)[0]

    def wait(self, seconds: float = 10.0) -> None:
        assert select.select([self._pidfd], [], [], seconds)[0], f"{self.pid} does not end"

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        os.close(self._pidfd)


class Spawner:
    """One helper process for a test session."""

    def __init__(self) -> None:
        self._sock, theirs = socket.socketpair()
        with theirs:
            self._helper = subprocess.Popen(
                [sys.executable, "-m", "tests.replica.spawner", str(theirs.fileno())],
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
            )

    def spawn(
        self, command: list[str], environment: dict[str, str], log: Path, fds: tuple[int, ...] = ()
    ) -> Process:
        """Start a command; it gets `fds` as 3, 4, … and writes to the end of `log`."""
        said = json.dumps({"command": command, "environment": environment, "log": str(log)})
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self._sock.sendmsg([said.encode()], rights)
        return Process(int(self._sock.recv(100)))

    def close(self) -> None:
        self._sock.close()
        self._helper.wait(10)


def _serve(sock: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        rights = array.array("i")
        message, ancillary, _, _ = sock.recvmsg(65536, socket.CMSG_SPACE(64))
        if not message:
            return
        for _, _, data in ancillary:
            rights.frombytes(data)
        said = json.loads(message)
        redirections = " ".join(f"{3 + n}<&{fd}" for n, fd in enumerate(rights))
        script = f'exec {redirections}; exec "$@"' if redirections else 'exec "$@"'
        with open(said["log"], "ab") as log:
            process = subprocess.Popen(
                ["/bin/bash", "-c", script, "sh", *said["command"]],
                cwd=ROOT,
                env=os.environ | said["environment"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=tuple(rights),
            )
        for fd in rights:
            os.close(fd)
        sock.sendall(b"%d" % process.pid)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
