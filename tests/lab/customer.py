# SPDX-License-Identifier: Apache-2.0
"""The test's side of the counting client: it is started, paused and asked here."""

from __future__ import annotations

import contextlib
import itertools
import json
import select
import subprocess
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .command import LabError, clean_environment
from .lab import Lab
from .place import PORTS
from .waiting import until

VIP = "10.0.0.100"
PORT = 6379
OWNERS = {p.mac: p.part for p in PORTS if p.link == "lan"}


@dataclass(slots=True)
class Seen:
    """All that the client has seen so far; times in seconds of the real-time clock."""

    acks: list[float] = field(default_factory=list)
    lost: int = 0
    moves: list[tuple[float, str]] = field(default_factory=list)
    """When which node was first heard to have the VIP, each time that it changed."""
    drops: list[tuple[float, str]] = field(default_factory=list)

    def add(self, line: str) -> None:
        """Takes up one line of the client's log."""
        match line.split(" ", 3):
            case ["ack", when, _, _]:
                self.acks.append(float(when))
            case ["lost", _, _, count]:
                self.lost += int(count)
            case ["vip", when, mac]:
                owner = OWNERS.get(mac, mac)
                if not self.moves or self.moves[-1][1] != owner:
                    self.moves.append((float(when), owner))
            case ["down", when, *why]:
                self.drops.append((float(when), " ".join(why)))

    def first_ack_after(self, moment: float) -> float | None:
        return self.acks[i] if (i := bisect_right(self.acks, moment)) < len(self.acks) else None

    def vip_at(self, node: str, after: float) -> float | None:
        return next((t for t, owner in self.moves if owner == node and t >= after), None)

    def longest_gap(self, begin: float, end: float) -> tuple[float, float]:
        """The longest time without an answer that touches the interval, as begin and end."""
        first = max(0, bisect_left(self.acks, begin) - 1)
        acks = self.acks[first : bisect_right(self.acks, end) + 1]
        touching = list(itertools.pairwise(acks))
        return max(touching, key=lambda gap: gap[1] - gap[0], default=(begin, end))


class Customer:
    """A running counting client. Leaves no process behind when closed."""

    def __init__(self, lab: Lab, log: Path, *, rate: float = 250.0) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("")
        self.log = log
        self._seen = Seen()
        self._read = 0
        program = Path(__file__).with_name("counter.py")
        self.process = subprocess.Popen(
            lab.in_client(
                "/usr/bin/python3", str(program), VIP, str(PORT), str(log), "--rate", str(rate)
            ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=clean_environment(),
        )

    def order(self, word: str) -> dict[str, Any]:
        """Gives an order, and returns the client's report once it was carried out."""
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(f"{word}\n")
            self.process.stdin.flush()
        except BrokenPipeError as err:
            raise LabError("the counting client has died", str(self.log)) from err
        if not select.select([self.process.stdout], [], [], 15)[0]:
            raise LabError("the counting client does not answer", str(self.log))
        return dict(json.loads(self.process.stdout.readline()))

    def pause(self) -> dict[str, Any]:
        """Stops counting; no increment is under way when this returns."""
        return self.order("pause")

    def report(self) -> dict[str, Any]:
        """`acks` and `lost` in numbers, `values` by key."""
        return self.order("report")

    def seen(self) -> Seen:
        """What the client has written down up to now. One and the same, growing object."""
        with self.log.open() as log:
            log.seek(self._read)
            text = log.read()
        whole = text[: text.rfind("\n") + 1]  # the last line may be half written
        self._read += len(whole)
        for line in whole.splitlines():
            self._seen.add(line)
        return self._seen

    def wait_acks(self, count: int, within: float = 20.0) -> None:
        """Returns when `count` more increments have been acknowledged."""
        before = int(self.report()["acks"])
        until(
            lambda: int(self.report()["acks"]) >= before + count,
            f"{count} acknowledged increments",
            within=within,
            hint=lambda: f"{self.log}: the last disconnections {self.seen().drops[-3:]}",
        )

    def wait_ack_after(self, moment: float, within: float) -> float:
        """The time of the first acknowledgement after `moment`."""
        return until(
            lambda: self.seen().first_ack_after(moment) or 0.0,
            "an acknowledged write after the event",
            within=within,
            hint=lambda: f"{self.log}: the last disconnections {self.seen().drops[-3:]}",
        )

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


@contextlib.contextmanager
def customer(lab: Lab, log: Path, *, rate: float = 250.0) -> Iterator[Customer]:
    """A counting client for the length of the block."""
    client = Customer(lab, log, rate=rate)
    try:
        yield client
    finally:
        client.close()
