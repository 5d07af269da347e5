# SPDX-License-Identifier: Apache-2.0
"""The fault matrix: `make matrix`. Every fault on a real pair, and what came of it.

What must happen stands in scenarios.py; this plays it, watches, judges, and writes
docs/fault-matrix.md. An outcome that is not the one written down makes the run fail.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from . import trees
from .appending import PAUSE
from .appends import Appends
from .cluster import DATA, Pair
from .command import LabError
from .customer import Customer, customer
from .lab import Lab
from .place import BUILD, PROJECT
from .scenarios import UNKNOWN, Must, Scenario, Step, scenarios
from .stage import Move, Side, Stage
from .standing import Standing

REPORT = PROJECT / "docs/fault-matrix.md"
HOLDS = 6.0
"""Seconds that an outcome must hold: three times `detect`, so that a late decision is seen."""


@dataclass(slots=True)
class Outcome:
    """What came of one step."""

    step: Step
    moves: list[Move] = field(default_factory=list)
    states: tuple[str, str] = ("", "")
    """What the nodes show in the end."""
    settled: float | None = None
    """Seconds from the fault until the states were as they must be; None if they never were."""
    paused: float | None = None
    """Seconds; the longest that a client waited, None if it was not served again."""
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Played:
    """What came of a scenario."""

    scenario: Scenario
    outcomes: list[Outcome] = field(default_factory=list)
    whole: float | None = None
    """Seconds from the mending to PRIM and SECOND."""
    appends: int = 0
    """How many were acknowledged."""
    increments: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def all_problems(self) -> list[str]:
        return [p for outcome in self.outcomes for p in outcome.problems] + self.problems


def play(pair: Pair, scenario: Scenario, directory: Path) -> Played:
    """Plays one scenario on a healthy pair, and leaves a pair that is mended."""
    played = Played(scenario)
    shutil.rmtree(directory, ignore_errors=True)
    with on_stage(pair, scenario, directory) as stage:
        try:
            stage.appends.wait()
            for step in scenario.steps:
                played.outcomes.append(take(stage, step))
        finally:
            begin = time.monotonic()
            stage.mend()
        await_whole(stage, scenario, played, begin)
        stage.appends.wait()
        report = stage.client.pause()
        stage.appends.end()
        played.increments = int(report["acks"])
        if report["lost"]:
            played.problems.append(f"{report['lost']} acknowledged increments of Redis are lost")
        played.appends = len(stage.appends.acknowledged())
        played.problems += stage.appends.problems(scenario.most_changes)
    if played.all_problems:
        pair.save_evidence(directory)
    scenario.restore(stage)
    return played


@contextmanager
def on_stage(pair: Pair, scenario: Scenario, directory: Path) -> Iterator[Stage]:
    """Clients and writers that work, for the length of the block."""
    appends = Appends(pair, scenario.name, directory)
    with customer(pair.lab, directory / "client.log") as client:
        stage = Stage(pair, pair.primary, pair.standby, client, appends)
        scenario.prepare(stage)
        stage.primary, stage.standby = pair.primary, pair.standby
        stage.stream_to("direct")
        client.wait_acks(20, within=60)
        try:
            appends.begin()
            yield stage
        finally:
            appends.end()


def take(stage: Stage, step: Step) -> Outcome:
    """Takes one step, and watches what comes of it."""
    outcome = Outcome(step)
    must = step.must
    served = stage.client.seen().acks[-1] if stage.client.seen().acks else time.time()
    begin, begin_clock = time.monotonic(), time.time()
    step.act(stage)
    outcome.settled = settle(stage, must, begin)
    outcome.moves = stage.moves(begin)
    outcome.states = stage.states()
    if outcome.settled is None:
        outcome.problems.append("that is not what must be")
    elif outcome.moves:
        outcome.settled = max(move.at for move in outcome.moves) - begin
    if must.still and (other := [move for move in outcome.moves if unlike(move, must)]):
        outcome.problems.append(f"{other[0].side} became {other[0].state}: {other[0].reason}")
    if must.pause is not None:
        outcome.paused = pause(stage.client, min(served, begin_clock), must.pause)
        if outcome.paused is None:
            outcome.problems.append("the clients are not served")
        elif outcome.paused > must.pause:
            outcome.problems.append(f"the clients waited {outcome.paused:.1f} s")
    if must.says:
        outcome.problems += unsaid(stage, must)
    return outcome


def unlike(move: Move, must: Must) -> bool:
    """Whether a node told another state than it must be in."""
    wanted = must.primary if move.side is Side.PRIMARY else must.standby
    return wanted not in (move.state, UNKNOWN)


def settle(stage: Stage, must: Must, begin: float) -> float | None:
    """Returns when the states have been as they must be for a while, and since when, in seconds
    from the fault; None if that did not begin in time."""
    since = None
    while True:
        now = time.monotonic() - begin
        if must.met_by(stage.states()):
            since = now if since is None else since
            if now - since >= HOLDS:
                return since
        elif now > must.within:
            return None
        else:
            since = None
        time.sleep(0.2)


def pause(client: Customer, since: float, most: float) -> float | None:
    """The longest that the client waited from `since` up to now, if it is served now."""
    with suppress(LabError):
        client.wait_acks(20, within=most + 5)
        begin, end = client.seen().longest_gap(since, time.time())
        return end - begin
    return None


def unsaid(stage: Stage, must: Must) -> Iterator[str]:
    """What a waiting node does not say, though it must."""
    wanted = must.says.format(primary=stage.primary.name, standby=stage.standby.name)
    for _, node in stage.sides:
        if stage.pair.state(node) == "WAIT":
            told = node.exec("hactl", "why", check=False).stdout
            if not re.search(wanted, told, re.DOTALL):
                yield f"{node.name} does not say “{wanted}” but {told.splitlines()[:3]}"


def await_whole(stage: Stage, scenario: Scenario, played: Played, begin: float) -> None:
    """Waits for PRIM and SECOND, with the role where it belongs."""
    try:
        stage.pair.wait_healthy(scenario.whole)
    except LabError as err:
        played.problems.append(f"the pair did not become whole: {err.message}")
        raise
    played.whole = time.monotonic() - begin
    moved = stage.pair.primary is not stage.primary
    if scenario.end != "either" and moved is not (scenario.end == "moves"):
        played.problems.append(f"in the end {stage.pair.primary.name} is primary")


def matrix(only: Sequence[str], directory: Path = BUILD / "matrix") -> int:
    """Plays all scenarios, or those whose names contain one of these words; writes the report
    when all were played. Returns the exit status."""
    chosen = [s for s in scenarios() if not only or any(word in s.name for word in only)]
    pair = Standing(Lab())
    done: list[Played] = []
    try:
        pair.new(owned=True)
        for number, scenario in enumerate(chosen, 1):
            played = attempt(pair, scenario, directory / scenario.name)
            done.append(played)
            print(f"{number:3} of {len(chosen)}  {in_words(played)}", flush=True)
            (directory / REPORT.name).write_text(report(done))
        compare(pair, done[-1])
    finally:
        pair.lab.down()
    failed = [played for played in done if played.all_problems]
    print(f"{len(done)} scenarios, {len(failed)} not as they must be", flush=True)
    if not only:
        REPORT.write_text(report(done))
    return 1 if failed else 0


def attempt(pair: Standing, scenario: Scenario, directory: Path) -> Played:
    """One scenario, on a pair that is in order before it: a new one if need be."""
    if not pair.in_order():
        pair.new(owned=True)
    try:
        return play(pair, scenario, directory)
    except LabError as err:
        with suppress(LabError, OSError):
            pair.save_evidence(directory)
        return Played(scenario, problems=[err.message])


def compare(pair: Pair, last: Played) -> None:
    """In the end both nodes show the same tree."""
    one, two = (trees.tree_of(node, DATA) for node in pair.nodes)
    last.problems += one.differences(two)[:5]


# -- the report -----------------------------------------------------------------------


def in_words(played: Played) -> str:
    """One line for whoever watches the run."""
    told = " | ".join(f"{did(o)}, clients {waited(o)}" for o in played.outcomes)
    verdict = "; ".join(played.all_problems) or "as it must be"
    return f"{played.scenario.name}: {told}; whole {seconds(played.whole)} — {verdict}"


def did(outcome: Outcome) -> str:
    """The states in the end, the time of the last change, and the ways there."""
    shown = " / ".join(outcome.states)
    if outcome.step.must.still and not outcome.problems:
        return f"{shown} as before"
    ways = []
    for side in Side:
        if told := [move.state for move in outcome.moves if move.side is side]:
            ways.append(f"{side} {', '.join(told)}")
    return f"{shown} after {seconds(outcome.settled)}" + (f" ({'; '.join(ways)})" if ways else "")


def waited(outcome: Outcome) -> str:
    return "not served" if outcome.step.must.pause is None else seconds(outcome.paused)


def seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f} s"


GROUPS = {
    "paths": "Cut paths",
    "life": "The life of a cluster",
    "machine": "Disks, daemons, applications",
}
HEAD = """\
# The fault matrix

Written by `make matrix`, which makes each of these faults on a pair of booted nodes and
judges what comes of it; an outcome that is not the one written down here fails the run.
What must happen stands in `tests/lab/scenarios.py`.

`detect` is 2 s, the default. States are those of the node that was primary / of the one that
was standby; a stopped cluster shows STOP, a node without power “off”, an operator that cannot
be asked “–”. An outcome must hold for {holds:g} s. Seconds are counted from the fault. *Clients
waited*: the longest time without an acknowledged write of a Redis client at the virtual IP.
*Whole*: from the mending to PRIM and SECOND.

Throughout, both nodes try to append numbered lines to one file, each through its own mount,
{rate:.0f} times a second, with O_APPEND and fsync. In the end every acknowledged line must be in
the file on both nodes, once, in the order of the acknowledgements, and the writer must not have
changed more often than the role: {appends:,} lines were acknowledged here, and {increments:,}
increments of Redis. {verdict}

A cut heartbeat drops UDP port 7410, a cut replication TCP port 7411, an unreachable witness what
goes to its address and comes from it, on all cables between the nodes; the client network is a
cable of its own, which carries heartbeats too and leads to the witness. A dead disk answers every
access with EIO. A clock is set for the operator and the heartbeat of a node only (libfaketime):
the machine has one clock, which belongs to others too.
"""


def report(done: list[Played]) -> str:
    """The text of docs/fault-matrix.md."""
    failed = sum(bool(played.all_problems) for played in done)
    verdict = f"{failed} of {len(done)} scenarios did not come out as they must."
    if not failed:
        verdict = f"All {len(done)} scenarios came out as they must; nothing was lost."
    text = HEAD.format(
        holds=HOLDS,
        rate=1 / PAUSE,
        appends=sum(played.appends for played in done),
        increments=sum(played.increments for played in done),
        verdict=verdict,
    )
    for group, title in GROUPS.items():
        text += f"\n## {title}\n\n"
        text += "| fault | must | clients may wait | did | clients waited | whole | |\n"
        text += "|---|---|---|---|---|---|---|\n"
        for played in done:
            if played.scenario.group == group:
                text += "".join(rows(played))
    return text


def rows(played: Played) -> Iterator[str]:
    for step, outcome in zip_longest(played.scenario.steps, played.outcomes):
        last = step is played.scenario.steps[-1]
        whole = seconds(played.whole) if last else ""
        problems = outcome.problems if outcome else []
        problems = problems + (played.problems if last else [])
        verdict = "; ".join(problems).replace("|", "\\|").replace("\n", " ") or "✓"
        may = "–" if step.must.pause is None else f"{step.must.pause:g} s"
        told = (did(outcome), waited(outcome)) if outcome else ("–", "–")
        yield f"| {' | '.join((step.text, str(step.must), may, *told, whole, verdict))} |\n"
