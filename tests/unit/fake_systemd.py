# SPDX-License-Identifier: Apache-2.0
"""The end of sd_notify(3) that systemd holds."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path


class Manager:
    """Hears what a service tells, with the time at which it was heard."""

    def __init__(self, path: Path) -> None:
        self.said: list[tuple[float, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self.environment = {**os.environ, "NOTIFY_SOCKET": str(path)}

    def hear(self, wanted: str, patience: float = 10.0) -> float:
        """Wait for an assignment that starts so; the time when it came."""
        deadline = time.monotonic() + patience
        seen = 0
        while True:
            for at, text in self.said[seen:]:
                if text.startswith(wanted):
                    return at
            seen = len(self.said)
            self._socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                message = self._socket.recv(4096).decode()
            except TimeoutError:
                raise AssertionError(f"never told {wanted}, but {self.said}") from None
            self.said += [(time.monotonic(), line) for line in message.split("\n")]

    def forget(self) -> None:
        """Wait only for what is told from here on."""
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(4096)
        self.said.clear()

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def manager(where: Path) -> Iterator[Manager]:
    """A manager for the services that are started with its `environment`."""
    made = Manager(where / "notify")
    try:
        yield made
    finally:
        made.close()


def resident_kib(pid: int) -> int:
    """VmRSS of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(f"process {pid} has no memory")
