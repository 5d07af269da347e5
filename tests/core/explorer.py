# SPDX-License-Identifier: Apache-2.0
"""The explorer: every state that two shipped cores can get into, and what must hold in each.

    python3 -m tests.core.explorer [--states N] [--disturbances N] [--processes N] [CASE ...]

Starting from a `Case`, every move of `tests.core.moves` is tried in every state, breadth first,
once for each state that is different (`tests.core.canonical`). The budget is the number of
*disturbances*: a fault, or something that an administrator does. First come all states with
none, to any depth, then all with one, at any point, then all with two, and so on; everything
else (messages, jobs, commands, time, recoveries) may happen in any order at no cost. So the
first counterexample has the fewest disturbances, and of these the fewest moves.

In each state `World.check` holds: never two writers, nobody serves without an acknowledged
write, and whoever may become primary without force has all of them. And from every
`SETTLES_EVERY`th state on, when faults stop, the pair comes to rest within `CALM_ROUNDS` rounds
of two seconds; a path to rest ends at the first state from which it is known already. From the same
states on, each node fails alone, nothing else is put right, and for `FAILURE_ROUNDS` rounds what
goes on without it serves every acknowledged write.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from haoperator.core.record import DataRecord
from tests.core.canonical import Key, key, write_everywhere
from tests.core.moves import COMMANDS, FAULTS, FORCE, RECOVERIES, USUAL, Move
from tests.core.world import NAMES, World, started_pair

SETTLES_EVERY = 16
CALM_ROUNDS = 60
FAILURE_ROUNDS = 4


def synced() -> World:
    return started_pair(World())


@dataclass(frozen=True)
class Case:
    """Where an exploration starts, and what may happen in it."""

    name: str
    begin: Callable[[], World]
    moves: tuple[Move, ...] = (*USUAL, *RECOVERIES, *FAULTS, *COMMANDS)


def _pair(**world: object) -> Callable[[], World]:
    return lambda: started_pair(World(**world))  # type: ignore[arg-type]


def _alone() -> World:
    """node-a writes alone, and node-b is off."""
    world = started_pair(World())
    world.crash(world.nodes[NAMES[1]])
    for _ in range(4):
        world.advance(1)
        world.run_command(world.nodes[NAMES[0]])
    return world


def _first_start() -> World:
    world = World()
    for node in world.nodes.values():
        node.record = DataRecord()
        world.boot(node)
    return world


CASES: tuple[Case, ...] = (
    Case("witness", _pair()),
    Case("virtual IPs", _pair(vips=True)),
    Case("arbiter", _pair(arbiter=True)),
    Case("manual failover", _pair(automatic=False)),
    Case("preferred node", _pair(preferred=NAMES[1])),
    Case("one node alone", _alone),
    Case("first start", _first_start),
    Case("force", _pair(former_primary_wins=True), (*USUAL, *RECOVERIES, *FAULTS, *FORCE)),
)
WITHOUT_ASSUMPTION = Case("witness, without the assumption", _pair(assumed=False))


@dataclass
class Counterexample:
    """The shortest way to a state that must not be."""

    case: str
    claim: str
    moves: list[tuple[str, bool]]
    """What each was, and whether it disturbs."""
    transcript: str

    def __str__(self) -> str:
        return f"{self.claim}, by {len(self.moves)} moves ({self.case}):\n{self.transcript}"


@dataclass
class Outcome:
    """What an exploration saw."""

    case: str
    states: int = 0
    transitions: int = 0
    depth: int = 0
    disturbances: int = 0
    """All states with so many were visited, if `whole`, else all with one less."""
    whole: bool = False
    settled: int = 0
    slowest: int = 0
    """Rounds until rest, at most."""
    seconds: float = 0.0
    counterexample: Counterexample | None = None


@dataclass
class _Visited:
    """How each state was reached first."""

    keys: dict[Key, int] = field(default_factory=dict)
    parents: list[int] = field(default_factory=list)
    moves: list[Move | None] = field(default_factory=list)

    def add(self, found: Key, parent: int, move: Move | None) -> int:
        """Its number, or -1 if it is known already."""
        number = len(self.parents)
        if self.keys.setdefault(found, number) != number:
            return -1
        self.parents.append(parent)
        self.moves.append(move)
        return number

    def way(self, number: int) -> list[Move]:
        way: list[Move] = []
        while (move := self.moves[number]) is not None:
            way.append(move)
            number = self.parents[number]
        return way[::-1]


class Exploration:
    """One case, breadth first, within a number of disturbances and of states."""

    def __init__(
        self,
        case: Case,
        disturbances: int,
        states: int = sys.maxsize,
        seconds: float = float("inf"),
        settles_every: int = SETTLES_EVERY,
    ) -> None:
        self.outcome = Outcome(case.name)
        self._case = case
        self._disturbances = disturbances
        self._states = states
        self._began = time.monotonic()
        self._until = self._began + seconds
        self._settles_every = settles_every
        self._visited = _Visited()
        self._at_rest: set[Key] = set()
        self._last = disturbances == 0
        self._usual = tuple(move for move in case.moves if not move.disturbs)
        self._disturbing = tuple(move for move in case.moves if move.disturbs)

    def run(self, progress: Callable[[Outcome], None] = lambda _: None) -> Outcome:
        """Until the budget is used up, or something is wrong."""
        outcome = self.outcome
        world = self._case.begin()
        world.telling = False
        level = [(0, world)]
        self._visited.add(key(world), 0, None)
        try:
            for number in range(self._disturbances + 1):
                outcome.disturbances, outcome.whole = number, False
                reached = self._closure(level, progress)
                outcome.whole = True
                progress(outcome)
                if number == self._disturbances:
                    break
                self._last = number + 1 == self._disturbances
                level = [each for part in reached for each in self._after(part, disturbed=True)]
                del reached
        except _Enough:
            pass
        except _Found as found:
            outcome.counterexample = found.counterexample
        outcome.states = len(self._visited.parents)
        outcome.seconds = time.monotonic() - self._began
        return outcome

    def _closure(
        self, level: list[tuple[int, World]], progress: Callable[[Outcome], None]
    ) -> list[list[tuple[int, World]]]:
        """All that follows without a disturbance more."""
        reached = []
        depth = 0
        while level:
            reached.append(level)
            depth += 1
            self.outcome.depth = max(self.outcome.depth, depth)
            self.outcome.states = len(self._visited.parents)
            self.outcome.seconds = time.monotonic() - self._began
            progress(self.outcome)
            level = list(self._after(level, disturbed=False))
        return reached

    def _after(
        self, level: list[tuple[int, World]], *, disturbed: bool
    ) -> Iterator[tuple[int, World]]:
        outcome, visited = self.outcome, self._visited
        for number, world in level:
            if time.monotonic() > self._until:
                raise _Enough
            for move in self._disturbing if disturbed else self._usual:
                after = world.copy()
                if not self._make(move, after, number):
                    continue
                outcome.transitions += 1
                if self._last:
                    _forget_late_ones(after)
                new = visited.add(key(after), number, move)
                if new < 0:
                    continue
                if new % self._settles_every == 0:
                    self._settle(after, new)
                    self._fail_one(after, new)
                yield new, after
                if len(visited.parents) >= self._states:
                    raise _Enough

    def _make(self, move: Move, world: World, number: int) -> bool:
        try:
            if not move.on(world):
                return False
            write_everywhere(world)
            world.check()
        except (AssertionError, RuntimeError) as err:
            raise self._found([*self._visited.way(number), move], str(err)) from err
        return True

    def _settle(self, world: World, number: int) -> None:
        """From here on nothing goes wrong any more."""
        world = world.copy()
        way: list[Key] = []
        try:
            world.heal()
            for _ in range(CALM_ROUNDS):
                now = key(world)
                if now in self._at_rest:
                    break
                way.append(now)
                if world.settled:
                    break
                world.go_on()
                write_everywhere(world)
            else:
                raise AssertionError("does not settle")
        except (AssertionError, RuntimeError) as err:
            claim = f"when faults stop: {err}"
            raise self._found(self._visited.way(number), claim, calm=True) from err
        self._at_rest.update(way)
        self.outcome.settled += 1
        self.outcome.slowest = max(self.outcome.slowest, len(way))

    def _fail_one(self, world: World, number: int) -> None:
        """Either node loses its power now, whatever is broken already."""
        for name in NAMES:
            try:
                _without(world.copy(), name)
            except (AssertionError, RuntimeError) as err:
                way = self._visited.way(number)
                raise self._found(way, f"when {name} fails: {err}", failing=name) from err

    def _found(
        self, moves: list[Move], claim: str, *, calm: bool = False, failing: str = ""
    ) -> _Found:
        claim = claim.splitlines()[0]
        transcript = replay(self._case, moves, calm=calm, failing=failing)
        told = [(str(move), move.disturbs) for move in moves]
        return _Found(Counterexample(self._case.name, claim, told, transcript))


def _forget_late_ones(world: World) -> None:
    """No disturbance is left, so that no heartbeat will be late."""
    world.late_ones = False
    for node in world.nodes.values():
        node.wire = ()


def _without(world: World, name: str) -> None:
    """One node fails, and the other goes on. Raises AssertionError."""
    if not world.crash(world.nodes[name]):
        return
    for _ in range(FAILURE_ROUNDS):
        world.go_on()


class _Enough(Exception):
    """The budget is used up."""


class _Found(Exception):
    def __init__(self, counterexample: Counterexample) -> None:
        super().__init__(counterexample.claim)
        self.counterexample = counterexample


def replay(case: Case, moves: list[Move], *, calm: bool = False, failing: str = "") -> str:
    """The moves once more, from the beginning, as a story: when, who, what happened, and
    what it showed. Then what follows when faults stop (`calm`), or when one node fails."""
    world = case.begin()
    world.story, world.since, world.telling = [], world.now, True
    try:
        for move in moves:
            world.story.append(f"{world.now - world.since:8.1f} -- {move}")
            move.on(world)
            write_everywhere(world)
            world.check()
        if calm:
            world.story.append(f"{world.now - world.since:8.1f} -- faults stop")
            world.calm(CALM_ROUNDS)
        if failing:
            world.story.append(f"{world.now - world.since:8.1f} -- {failing}: loses its power")
            _without(world, failing)
    except (AssertionError, RuntimeError) as err:
        world.story.append(f"{'':8} !! {str(err).splitlines()[0]}")
    return world.tell_story("").strip()


def _explore(work: tuple[str, int, int, float]) -> Outcome:
    name, disturbances, states, seconds = work
    case = next(case for case in CASES if case.name == name)
    gc.disable()  # nothing here has cycles, and there are millions of objects
    told = time.monotonic()

    def progress(outcome: Outcome) -> None:
        nonlocal told
        if time.monotonic() - told > 15:
            told = time.monotonic()
            print(
                f"  {outcome.case}: {outcome.states:,} states, {outcome.disturbances} "
                f"disturbances, {outcome.seconds:.0f} s",
                flush=True,
            )

    return Exploration(case, disturbances, states, seconds).run(progress)


def explore(
    names: list[str], disturbances: int, states: int, processes: int, seconds: float
) -> list[Outcome]:
    """Explore each of the named cases, printing what was seen."""
    work = [(name, disturbances, states, seconds) for name in names]
    outcomes = []
    print(
        f"{'case':24}{'states':>12}{'transitions':>13}{'disturbances':>14}"
        f"{'depth':>7}{'settled':>9}{'rounds':>8}{'seconds':>9}"
    )
    with multiprocessing.get_context("fork").Pool(processes, maxtasksperchild=1) as pool:
        for outcome in pool.imap_unordered(_explore, work, chunksize=1):
            outcomes.append(outcome)
            budget = f"{outcome.disturbances}{'' if outcome.whole else ' in part'}"
            print(
                f"{outcome.case:24}{outcome.states:>12,}{outcome.transitions:>13,}{budget:>14}"
                f"{outcome.depth:>7}{outcome.settled:>9,}{outcome.slowest:>8}"
                f"{outcome.seconds:>9.0f}",
                flush=True,
            )
            if outcome.counterexample is not None:
                print(outcome.counterexample, flush=True)
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("cases", nargs="*", default=[case.name for case in CASES])
    parser.add_argument("--disturbances", type=int, default=2)
    parser.add_argument("--states", type=int, default=sys.maxsize, help="of each case at most")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for each case")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    asked = parser.parse_args()
    began = time.monotonic()
    outcomes = explore(
        asked.cases, asked.disturbances, asked.states, asked.processes, asked.seconds
    )
    states = sum(outcome.states for outcome in outcomes)
    transitions = sum(outcome.transitions for outcome in outcomes)
    print(
        f"{states:,} distinct states, {transitions:,} transitions, {time.monotonic() - began:.0f} s"
    )
    return 1 if any(outcome.counterexample for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
