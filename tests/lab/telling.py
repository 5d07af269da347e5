# SPDX-License-Identifier: Apache-2.0
"""How the demonstration tells what it does: numbered steps, what came out, how long it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

BOLD, DIM, GREEN, RED, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[31m", "\x1b[0m"


@dataclass(slots=True)
class Telling:
    """Writes to standard output, in colour if that is a terminal."""

    colour: bool = field(default_factory=sys.stdout.isatty)
    begin: float = field(default_factory=time.monotonic)
    steps: list[dict[str, object]] = field(default_factory=list)
    events: list[tuple[float, str]] = field(default_factory=list)
    """Moments for the timeline, in seconds of the real-time clock."""

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One step; what is said in the block stands below its title."""
        number = len(self.steps) + 1
        at = time.monotonic()
        print(self._in(BOLD, f"\n{number}. {title}"), flush=True)
        try:
            yield
        except BaseException:
            print(self._in(RED, f"   failed after {time.monotonic() - at:.1f} s"), flush=True)
            raise
        seconds = time.monotonic() - at
        self.steps.append({"step": title, "seconds": round(seconds, 3)})
        print(self._in(DIM, f"   {seconds:.1f} s"), flush=True)

    def say(self, text: str) -> None:
        for line in text.splitlines():
            print(f"   {line}", flush=True)

    def fact(self, name: str, value: str, *, good: bool | None = None) -> None:
        """One result, in a column; green or red if it can be good or bad."""
        shown = value if good is None else self._in(GREEN if good else RED, value)
        print(f"   {name:<52} {shown}", flush=True)

    def mark(self, what: str, moment: float | None = None) -> float:
        """Puts an event on the timeline, now if no moment is given."""
        moment = time.time() if moment is None else moment
        self.events.append((moment, what))
        return moment

    def _in(self, code: str, text: str) -> str:
        return f"{code}{text}{PLAIN}" if self.colour else text
