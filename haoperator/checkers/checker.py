# SPDX-License-Identifier: Apache-2.0
"""The process that lives with a checker: asks, shows signs of life, ends when it is broken.

A sign of life (`WATCHDOG=1`) is sent for every right answer and for nothing else.
So systemd ends a checker that hangs as it sees one that ends by itself, and both
are the same event: the unit has failed.
"""

from __future__ import annotations

import time

from haoperator.checkers.probe import PROBES
from haoperator.checkers.promise import Promise
from haoperator.lean.notify import error, info, tell, warn


def check(name: str, kind: str, target: str, interval: float, timeout: float, limit: int) -> str:
    """Ask every `interval` seconds until the promise is broken; the last answer."""
    promise = Promise(limit)
    shown = ""
    due = time.monotonic()
    while True:
        was_wrong = promise.wrong
        answer = PROBES[kind](target, timeout)
        status = promise.note(answer)
        if answer.right:
            tell("WATCHDOG=1")
        if status != shown:
            shown = status
            tell(f"STATUS={status}")
            if not answer.right and not was_wrong:
                warn(f"checker {name}: {status}")
            elif answer.right and was_wrong:
                info(f"checker {name}: {status} again")
        if promise.broken:
            return status
        due = max(due + interval, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


def main(arguments: list[str]) -> int:
    """`NAME KIND TARGET INTERVAL TIMEOUT FAILURES`. Ends only when the promise is broken."""
    name, kind, target, interval, timeout, limit = arguments
    last = check(name, kind, target, float(interval), float(timeout), int(limit))
    error(f"checker {name}: broken: {last}")
    return 1
