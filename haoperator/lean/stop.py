# SPDX-License-Identifier: Apache-2.0
"""SIGTERM as something to wait for, beside sockets and timers."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterable

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def hold_back() -> None:
    """Keep stop requests pending, across exec, until a `StopRequest` receives them.

    For the moment between telling systemd READY=1 and becoming the process that
    waits: a stop that falls into it must not skip what stopping has to do.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def held_back() -> bool:
    """Whether a stop was requested since `hold_back`, and is pending."""
    return not signal.sigpending().isdisjoint(_SIGNALS)


class StopRequest:
    """From its creation on, SIGTERM and SIGINT do not kill; they are waited for."""

    def __init__(self) -> None:
        self.requested = False
        self._read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, self._note)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def wait(self, seconds: float, descriptors: Iterable[int] = ()) -> list[int]:
        """Sleep until a stop is requested, a descriptor is readable, or time is over.

        Returns the readable descriptors; look at `requested` first.
        """
        if self.requested:
            return []
        poll = select.poll()
        poll.register(self._read, select.POLLIN)
        for descriptor in descriptors:
            poll.register(descriptor, select.POLLIN)
        ready = [fd for fd, _ in poll.poll(max(0.0, seconds) * 1000)]
        if self._read in ready:
            os.read(self._read, 64)
            ready.remove(self._read)
        return ready

    def sleep(self, seconds: float) -> bool:
        """Sleep that a stop ends early. True if it did."""
        end = time.monotonic() + seconds
        while not self.requested and (left := end - time.monotonic()) > 0:
            self.wait(left)
        return self.requested

    def _note(self, _signal: int, _frame: object) -> None:
        self.requested = True
