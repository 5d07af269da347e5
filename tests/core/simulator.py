# SPDX-License-Identifier: Apache-2.0
"""Long lives of a pair, by chance: deeper than the explorer gets, and replayable by their seed.

    python3 -m tests.core.simulator [--seed N] [--seconds N]

A life is a sequence of troubled times, with any number of disturbances, each of which ends
with faults stopping and the pair coming to rest; then it is idle for up to an hour, in one step.
`World.check` holds after every move.
"""

from __future__ import annotations

import argparse
import random
import sys
import time

from tests.core.canonical import write_everywhere
from tests.core.moves import COMMANDS, FAULTS, FORCE, RECOVERIES, USUAL, Move
from tests.core.world import NAMES, World, started_pair

MOVES = 80
"""Of one troubled time."""
CALM_ROUNDS = 100
IDLE_SECONDS = 3600
_OFTEN = USUAL * 6 + RECOVERIES * 2
_SELDOM = FAULTS + COMMANDS


def born(chance: random.Random) -> World:
    """A started pair, configured by chance."""
    return started_pair(
        World(
            preferred=chance.choice((None, None, *NAMES)),
            arbiter=chance.random() < 0.3,
            vips=chance.random() < 0.5,
            automatic=chance.random() < 0.8,
            former_primary_wins=chance.random() < 0.5,
        )
    )


def troubled(world: World, chance: random.Random, moves: int = MOVES) -> World:
    """Raises AssertionError, with the story, if something goes wrong. Returns the world, in
    which some move may have turned out to be impossible half-way, so that it is a new one."""
    seldom: tuple[Move, ...] = _SELDOM + (FORCE if chance.random() < 0.05 else ())
    for _ in range(moves):
        move = chance.choice(seldom if chance.random() < 0.15 else _OFTEN)
        after = world.copy()
        if not move.on(after):
            continue
        world = after
        if world.telling:
            world.story.append(f"{world.now - world.since:8.1f} -- {move}")
        write_everywhere(world)
        world.check()
    if world.telling:
        world.story.append(f"{world.now - world.since:8.1f} -- faults stop")
    assert world.calm(CALM_ROUNDS), world.tell_story("does not settle")
    if not world.forced:
        for node in world.nodes.values():
            assert world.acknowledged <= node.writes, world.tell_story("a write is lost")
    return world


def life(seed: int, times: int) -> World:
    """So many troubled times. Raises AssertionError with the seed that shows it again."""
    chance = random.Random(seed)
    world = born(chance)
    try:
        for _ in range(times):
            world.story.clear()
            world.since = world.now
            world = troubled(world, chance)
            if world.forced:
                break  # a split brain is for people to resolve
            world.now += chance.randrange(IDLE_SECONDS)
            world.advance(1)
    except AssertionError as err:
        raise AssertionError(f"seed {seed}: {err}") from err
    return world


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--seconds", type=float, default=60.0)
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    began, lived, lives = time.monotonic(), 0, 0
    while time.monotonic() - began < asked.seconds:
        lived += life(asked.seed + lives, times=50).now
        lives += 1
    seconds = time.monotonic() - began
    print(
        f"{lives} lives, {lived / 3600:,.0f} hours of a cluster in {seconds:.0f} s: "
        f"{lived / 3600 / seconds:,.1f} hours a second"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
