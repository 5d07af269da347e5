# SPDX-License-Identifier: Apache-2.0
"""The end of sd_notify(3) that systemd holds."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path


class Manager:
    """Hears what a service tells, with the time at which it was heard.

    It listens all the time, as systemd does: the kernel lets a service wait that tells more
    than ten things to nobody.
    """

    def __init__(self, path: Path) -> None:
        self.said: list[tuple[float, str]] = []
        self._news = threading.Condition()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self.environment = {**os.environ, "NOTIFY_SOCKET": str(path)}
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def hear(self, wanted: str, patience: float = 10.0) -> float:
        """Wait for an assignment that starts so; the time when it came."""
        deadline = time.monotonic() + patience
        with self._news:
            while True:
                for at, text in self.said:
                    if text.startswith(wanted):
                        return at
                if not self._news.wait(deadline - time.monotonic()):
                    raise AssertionError(f"never told {wanted}, but {self.said}")

    def hear_what_came(self) -> None:
        """Until everything that was told so far is in `said`."""
        while select.select([self._socket], [], [], 0)[0]:
            time.sleep(0.001)
        with self._news:
            pass  # the last of it is being noted

    def forget(self) -> None:
        """Wait only for what is told from here on."""
        self.hear_what_came()
        with self._news:
            self.said.clear()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RD)
        self._listener.join()
        self._socket.close()

    def _listen(self) -> None:
        while message := self._socket.recv(4096).decode():
            with self._news:
                self.said += [(time.monotonic(), line) for line in message.split("\n")]
                self._news.notify_all()


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
