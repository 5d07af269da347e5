# SPDX-License-Identifier: Apache-2.0
"""sd_notify(3) and journal lines for processes that import next to nothing."""

from __future__ import annotations

import os
import socket
import sys


def tell(*assignments: str) -> None:
    """Send assignments such as `READY=1` to systemd, if it asked for them."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    if path.startswith("@"):
        path = "\0" + path[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto("\n".join(assignments).encode(), path)
        except OSError as err:
            warn(f"systemd was not told {assignments[0]}: {err}")


def watchdog_seconds() -> float | None:
    """The unit's `WatchdogSec=` in seconds, None where there is none for this process."""
    usec, pid = os.environ.get("WATCHDOG_USEC"), os.environ.get("WATCHDOG_PID")
    if not usec or (pid and int(pid) != os.getpid()):
        return None
    return int(usec) / 1_000_000


def info(text: str) -> None:
    """A line for the journal, at the level that its prefix says (sd-daemon(3))."""
    _say(6, text)


def warn(text: str) -> None:
    """Something is not as it should be; it goes on."""
    _say(4, text)


def error(text: str) -> None:
    """It does not go on."""
    _say(3, text)


def _say(level: int, text: str) -> None:
    prefix = f"<{level}>" if os.environ.get("JOURNAL_STREAM") else ""
    lines = text.splitlines() or [""]
    sys.stderr.write("".join(f"{prefix}{line}\n" for line in lines))
    sys.stderr.flush()
