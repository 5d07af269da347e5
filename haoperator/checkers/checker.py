# SPDX-License-Identifier: Apache-2.0
"""The process that lives with a checker: asks, shows signs of life, ends when it is broken.

The unit is active (`READY=1`) when what it checks is known to be well. A sign of life
(`WATCHDOG=1`, or more time until READY=1) is sent for every right answer and for nothing
else but wrong ones at the beginning. So systemd ends a checker that hangs as it sees one
that ends by itself, and both are the same event: the unit has failed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from haoperator.checkers.probe import probe_of
from haoperator.checkers.promise import Answer, Promise
from haoperator.lean.notify import error, info, tell, warn

if TYPE_CHECKING:
    from collections.abc import Callable


class Checker:
    """`ask` never raises, and `silence` is the longest that systemd may have to wait."""

    def __init__(
        self, name: str, ask: Callable[[], Answer], promise: Promise, silence: float
    ) -> None:
        self._name = name
        self._ask = ask
        self._promise = promise
        self._silence = silence
        self._shown = ""

    def run(self, interval: float) -> str:
        """Ask every `interval` seconds until the promise is broken; the last answer."""
        due = time.monotonic()
        while True:
            status = self._look()
            if self._promise.broken:
                return status
            due = max(due + interval, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))

    def _look(self) -> str:
        promise = self._promise
        was_well, was_wrong = promise.well, promise.wrong
        answer = self._ask()
        status = promise.note(answer)
        if status != self._shown:
            self._shown = status
            tell(f"STATUS={status}")
        if not promise.well:
            tell(f"EXTEND_TIMEOUT_USEC={self._silence * 1e6:.0f}")
        elif not was_well:
            tell("READY=1")
        if answer.right:
            tell("WATCHDOG=1")
        if not answer.right and not was_wrong:
            warn(f"checker {self._name}: {status}")
        elif was_wrong and not promise.wrong:
            info(f"checker {self._name}: {status} again")
        return status


def main(arguments: list[str]) -> int:
    """`NAME KIND TARGET INTERVAL TIMEOUT FAILURES SUCCESSES SILENCE [OPTION=VALUE...]`.

    Ends only when the promise is broken.
    """
    name, kind, target, *rest = arguments
    interval, timeout, silence = float(rest[0]), float(rest[1]), float(rest[4])
    options = dict(option.split("=", 1) for option in rest[5:])
    probe = probe_of(kind)

    def ask() -> Answer:
        return probe(target, timeout, **options)

    promise = Promise(int(rest[2]), int(rest[3]))
    last = Checker(name, ask, promise, silence).run(interval)
    error(f"checker {name}: broken: {last}")
    return 1
