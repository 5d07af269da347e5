# SPDX-License-Identifier: Apache-2.0
"""A watcher of the first invariant: never two writers.

In each node a loop tries to write a small file in the replicated directory,
twenty times a second, and tells when it was let. One node after the other may
write; the two in turns is what must never be seen.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .cluster import DATA
from .command import LabError, clean_environment
from .lab import Lab
from .node import Node
from .waiting import until

PROGRAM = """
import ctypes, os, sys, time
ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG: it ends with the nsenter that brought it here
path = sys.argv[1] + "/.writer"
while True:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            os.write(fd, os.uname().nodename.encode())
        finally:
            os.close(fd)
        print(f"{time.time():.6f} wrote", flush=True)
    except OSError as err:
        print(f"{time.time():.6f} {err.strerror}", flush=True)
    time.sleep(0.05)
"""


@dataclass(frozen=True, slots=True)
class Attempt:
    """`answer` is "wrote", or what the kernel said instead, at `time`."""

    time: float
    node: str
    answer: str


class Writers:
    """The loops of both nodes. One that died with its node is started again by `watch`."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.loops: list[subprocess.Popen[bytes]] = []
        self.logs: list[tuple[str, Path]] = []

    def watch(self, node: Node) -> None:
        log = self.directory / f"writer-{node.name}-{len(self.logs)}.log"
        with log.open("wb") as out:
            loop = subprocess.Popen(
                [*node.entering(), "python3", "-c", PROGRAM, DATA],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.DEVNULL,
                env=clean_environment(),
            )
        self.loops.append(loop)
        self.logs.append((node.name, log))

    def attempts(self) -> list[Attempt]:
        """All attempts of both nodes, in the order in which they were answered."""
        made = []
        for node, log in self.logs:
            for line in log.read_text(errors="replace").splitlines():
                when, _, answer = line.partition(" ")
                if answer:
                    made.append(Attempt(float(when), node, answer))
        return sorted(made, key=lambda a: a.time)

    def turns(self) -> list[Attempt]:
        """The first write of each period in which only one node wrote."""
        turns: list[Attempt] = []
        for attempt in self.attempts():
            if attempt.answer == "wrote" and (not turns or turns[-1].node != attempt.node):
                turns.append(attempt)
        return turns

    def check(self, changes: int) -> None:
        """Raises LabError unless the role of the writer moved exactly `changes` times."""
        turns = self.turns()
        if len(turns) - 1 != changes:
            shown = ", ".join(f"{t.node} from {t.time:.3f}" for t in turns)
            raise LabError(
                f"{len(turns) - 1} changes of the writer instead of {changes}: {shown}",
                str(self.directory),
            )

    def last_write(self, node: Node, before: float = float("inf")) -> float:
        """When `node` last wrote before a moment; 0 if it never did."""
        wrote = (
            a.time
            for a in self.attempts()
            if a.node == node.name and a.answer == "wrote" and a.time < before
        )
        return max(wrote, default=0.0)

    def first_write(self, node: Node, after: float = 0.0) -> float:
        """When `node` first wrote after a moment; infinity if it never did."""
        wrote = (
            a.time
            for a in self.attempts()
            if a.node == node.name and a.answer == "wrote" and a.time > after
        )
        return min(wrote, default=float("inf"))

    def close(self) -> None:
        """Ends the loops. One may hang in a write that its node does not answer yet."""
        for loop in self.loops:
            loop.kill()
        deadline = time.monotonic() + 10
        for loop in self.loops:
            with contextlib.suppress(subprocess.TimeoutExpired):
                loop.wait(max(0.1, deadline - time.monotonic()))


@contextlib.contextmanager
def watching(lab: Lab, directory: Path) -> Iterator[Writers]:
    """Watches both nodes for the length of the block."""
    writers = Writers(directory)
    try:
        for node in lab.nodes.values():
            writers.watch(node)
        until(
            lambda: {a.node for a in writers.attempts()} == set(lab.nodes),
            "a first answer to the writer of each node",
            within=20,
        )
        yield writers
    finally:
        writers.close()
