# SPDX-License-Identifier: Apache-2.0
"""Telling systemd how this process is: ready, alive, what it is doing (sd_notify(3))."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

import sdnotify

_notifier = sdnotify.SystemdNotifier()


def ready(status: str = "") -> None:
    """The unit counts as started from here on."""
    _notifier.notify(f"READY=1\nSTATUS={status}" if status else "READY=1")


def status(text: str) -> None:
    """The one line that `systemctl status` shows."""
    _notifier.notify(f"STATUS={text}")


def stopping(status: str = "") -> None:
    """The process is on its way out, in order."""
    _notifier.notify(f"STOPPING=1\nSTATUS={status}" if status else "STOPPING=1")


def alive() -> None:
    """One sign of life for `WatchdogSec=`. Send it because work made progress."""
    _notifier.notify("WATCHDOG=1")


def watchdog_seconds() -> float | None:
    """The unit's `WatchdogSec=` in seconds, None where there is none for this process."""
    usec, pid = os.environ.get("WATCHDOG_USEC"), os.environ.get("WATCHDOG_PID")
    if not usec or (pid and int(pid) != os.getpid()):
        return None
    return int(usec) / 1_000_000


async def prove_alive(progress: Callable[[], Awaitable[None]]) -> None:
    """Pet the watchdog for ever, each time `progress` came back.

    `progress` must pass through the work that the watchdog guards (the event
    loop, the bus), so that a hang there stops the signs of life.
    """
    seconds = watchdog_seconds()
    while True:
        await progress()
        alive()
        await asyncio.sleep(seconds / 3 if seconds else 10)
