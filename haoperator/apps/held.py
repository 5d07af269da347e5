# SPDX-License-Identifier: Apache-2.0
"""Containers that a unit has started, as they are written down and handed on."""

from __future__ import annotations

import os
import signal
from typing import NamedTuple

TRACE = "app"
"""The kind of an application's trace in /run."""


class Held(NamedTuple):
    """One container. `pid` is that of its first process, 0 before it runs; `stop_signal` is what
    ends it in order."""

    id: str
    name: str
    pid: int = 0
    stop_signal: int = signal.SIGTERM

    def __str__(self) -> str:
        return f"{self.id} {self.name} {self.pid} {self.stop_signal}"

    @classmethod
    def parse(cls, text: str) -> Held:
        container, name, pid, stop_signal = text.split()
        return cls(container, name, int(pid), int(stop_signal))

    def open(self) -> int | None:
        """A pidfd of its first process, None if that is gone (or the number is another's now)."""
        if self.pid <= 0:
            return None
        try:
            pidfd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return None
        try:
            with open(f"/proc/{self.pid}/cgroup", encoding="utf-8") as file:
                ours = self.id in file.read()
        except OSError:
            ours = False
        if ours:
            return pidfd
        os.close(pidfd)
        return None


def number_of(stop_signal: str) -> int:
    """Of a signal as Docker names it: `SIGINT`, `INT`, `2`, `SIGRTMIN+3`; SIGTERM for none."""
    text = stop_signal.upper().removeprefix("SIG")
    if text.isdigit():
        return int(text)
    name, _, offset = text.partition("+")
    known = signal.Signals.__members__.get(f"SIG{name}", signal.SIGTERM)
    return int(known) + (int(offset) if offset.isdigit() else 0)
