# SPDX-License-Identifier: Apache-2.0
"""The proof that there was one writer at a time, and that nothing acknowledged is lost.

Both nodes try all the time to append numbered lines to the same file, each through its
own mount (appending.py). Whatever happened meanwhile, in the end there is one file, on
both nodes, and it must be a history that one writer at a time can have made:

* every acknowledged line is in it, once;
* a line that was acknowledged before another was begun stands before it;
* by the times of the acknowledgements, the writer changed no more often than the role did.

A second writer breaks the first two: what it acknowledged is in its own copy only.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .cluster import DATA, Pair
from .command import clean_environment
from .node import Node
from .waiting import until

PROGRAM = Path(__file__).with_name("appending.py")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to append; seconds of CLOCK_MONOTONIC."""

    begin: float
    end: float
    node: str
    line: str
    answer: str

    @property
    def acknowledged(self) -> bool:
        return self.answer == "acknowledged"


class Appends:
    """The writers of both nodes. One that died with its node is started again by `watch`."""

    def __init__(self, pair: Pair, name: str, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.pair = pair
        self.directory = directory
        self.path = f"{DATA}/appends/{name}"
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.logs: list[tuple[Node, str, Path]] = []

    def begin(self) -> None:
        """Makes the file on the primary, and starts both writers."""
        make = 'mkdir -p "${1%/*}" && : >"$1" && sync "$1" "${1%/*}"'
        self.pair.primary.exec("sh", "-c", make, "sh", self.path)
        for node in self.pair.nodes:
            self.watch(node)

    def watch(self, node: Node) -> None:
        """Starts the writer of a node, unless it runs."""
        if (running := self.running.get(node.name)) and running.poll() is None:
            return
        writer = f"{node.name}.{len(self.logs)}"
        log = self.directory / f"appends-{writer}.log"
        program = ("python3", "-c", PROGRAM.read_text(), DATA, self.path, writer)
        with log.open("wb") as out:
            self.running[node.name] = subprocess.Popen(
                [*node.entering(), *program],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=clean_environment(),
            )
        self.logs.append((node, writer, log))

    def attempts(self) -> list[Attempt]:
        """All attempts of both nodes so far, in the order in which they were answered."""
        made = []
        for node, writer, log in self.logs:
            text = log.read_text(errors="replace")
            for line in text[: text.rfind("\n") + 1].splitlines():
                begin, end, number, answer = line.split(" ", 3)
                told = f"{writer} {number}"
                made.append(Attempt(float(begin), float(end), node.name, told, answer))
        return sorted(made, key=lambda attempt: attempt.end)

    def acknowledged(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts() if attempt.acknowledged]

    def wait(self, more: int = 10, within: float = 30.0) -> None:
        """Returns when `more` lines have been acknowledged, on whichever node."""
        before = len(self.acknowledged())
        until(
            lambda: len(self.acknowledged()) >= before + more,
            f"{more} acknowledged appends",
            within=within,
            hint=lambda: f"{self.directory}: {self.attempts()[-2:]}\n{self.pair.explain()}",
        )

    def end(self) -> None:
        """Ends the writers. One may hang in a write that its node does not answer yet."""
        for process in self.running.values():
            process.kill()
        deadline = time.monotonic() + 10
        for process in self.running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))

    def problems(self, changes: int) -> list[str]:
        """What is wrong with the file on either node; the role moved `changes` times at most."""
        attempts = self.acknowledged()
        found = list(turns_too_many(attempts, changes))
        for node in self.pair.nodes:
            there = node.exec("cat", self.path).stdout.splitlines()
            found += [f"{node.name}: {problem}" for problem in missing(attempts, there)]
        return found


def missing(attempts: list[Attempt], there: list[str]) -> Iterator[str]:
    """What was acknowledged and is not in the file, or not in the order of its acknowledgement."""
    twice = [line for line, count in Counter(there).items() if count > 1]
    if twice:
        yield f"{len(twice)} lines are there more than once: {twice[:3]}"
    places = {line: place for place, line in enumerate(there)}
    lost = [a for a in attempts if a.line not in places]
    if lost:
        shown = ", ".join(f"{a.line} at {a.end:.3f}" for a in lost[:3])
        yield f"{len(lost)} of {len(attempts)} acknowledged lines are lost: {shown}"
    kept = [a for a in attempts if a.line in places]
    latest = -1  # place of the last line that was acknowledged before the one in hand began
    ended = iter(kept)
    next_ended = next(ended, None)
    for begun in sorted(kept, key=lambda attempt: attempt.begin):
        while next_ended is not None and next_ended.end < begun.begin:
            latest = max(latest, places[next_ended.line])
            next_ended = next(ended, None)
        if places[begun.line] < latest:
            yield f"{begun.line} stands before {there[latest]}, which was acknowledged before"
            return


def turns_too_many(attempts: list[Attempt], changes: int) -> Iterator[str]:
    """Whether the writer changed more often than the role."""
    turns = [a for i, a in enumerate(attempts) if i == 0 or attempts[i - 1].node != a.node]
    if len(turns) - 1 > changes:
        shown = ", ".join(f"{a.node} from {a.end:.3f}" for a in turns)
        yield f"the writer changed {len(turns) - 1} times instead of {changes}: {shown}"
