# SPDX-License-Identifier: Apache-2.0
"""The bench's side of the prober: who answered for the virtual IP, and when."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from tests.lab.command import clean_environment
from tests.lab.customer import OWNERS, VIP
from tests.lab.lab import Lab
from tests.lab.waiting import until

Answer = tuple[float, str]
"""When, in seconds of CLOCK_MONOTONIC, and which node."""


class Probe:
    """A running prober."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def answers(self) -> list[Answer]:
        """All that it has told so far."""
        text = self.log.read_text()
        whole = text[: text.rfind("\n") + 1]  # the last line may be half written
        told = (line.split() for line in whole.splitlines())
        return [(float(when), OWNERS[mac]) for when, mac in told]

    def moves(self) -> int:
        """How often another node answered than the one before."""
        return sum(before != after for (_, before), (_, after) in pairwise(self.answers()))

    def wait(self, node: str, after: float, within: float) -> float:
        """When `node` first answered after a moment."""

        def first() -> float:
            return next((t for t, who in self.answers() if t > after and who == node), 0.0)

        return until(first, f"an answer of {node} for {VIP}", within=within, hint=str(self.log))


@contextlib.contextmanager
def probing(lab: Lab, log: Path) -> Iterator[Probe]:
    """A prober in the client's network for the length of the block."""
    program = str(Path(__file__).with_name("prober.py"))
    with log.open("w") as out:
        process = subprocess.Popen(
            lab.in_client("/usr/bin/python3", program, "eth0", VIP),
            stdin=subprocess.DEVNULL,
            stdout=out,
            env=clean_environment(),
        )
    try:
        yield Probe(log)
    finally:
        process.kill()
        process.wait()
