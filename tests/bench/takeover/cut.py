# SPDX-License-Identifier: Apache-2.0
"""One power cut, and the turn of one rival: a cut of each node."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.takeover.probing import probing
from tests.bench.takeover.rivals import Rival
from tests.lab.lab import Lab
from tests.lab.node import Node
from tests.lab.waiting import until

CUTS_A_TURN = 2
"""One for each node."""
HOLD_SECONDS = (1.5, 2.5)
"""How long a settled pair is left alone before the cut: at any point between two beats."""
SETTLE_SECONDS = 90.0
ANSWER_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Cut:
    """What came of one power cut. All in seconds."""

    rival: str
    died: str
    took: float
    """From the command that cuts until the survivor's first answer for the address."""
    gap: float
    """The same, from the last answer of the node that died."""
    moves: int
    """How often another node answered while nothing had happened."""
    watched: float
    """How long nothing had happened."""

    def __str__(self) -> str:
        moved = f"; it had moved {self.moves} times before" if self.moves else ""
        return f"{self.died} died: {self.took:.3f} s{moved}"


def take_over(lab: Lab, rival: Rival, log: Path) -> Cut:
    """Cuts the power of the node that has the address, and waits for the survivor."""
    holder = settle(rival)
    with probing(lab, log) as probe:
        begin = time.monotonic()
        probe.wait(holder.name, begin, within=10)
        # Not a wait for anything: the pair is watched while nothing happens.
        time.sleep(random.uniform(*HOLD_SECONDS))
        moves = probe.moves()
        died = lab.nodes[probe.answers()[-1][1]]
        survivor = lab.other(died)
        cut = time.monotonic()
        died.power_cut()
        answered = probe.wait(survivor.name, cut, within=ANSWER_SECONDS)
        last = max(t for t, who in probe.answers() if who == died.name)
    return Cut(rival.name, died.name, answered - cut, answered - last, moves, cut - begin)


def turn(lab: Lab, rival: Rival, cuts: int, log: Path) -> list[Cut]:
    """The turn of one rival. Nothing of it runs afterwards, and both nodes have power."""
    done: list[Cut] = []
    lab.on_both(rival.start)
    for number in range(cuts):
        if number:
            died = lab.nodes[done[-1].died]
            died.boot()
            rival.start(died)
        done.append(take_over(lab, rival, log))
        print(f"{time.strftime('%H:%M:%S')} {rival.title:21} {done[-1]}", flush=True)

    def put_away(node: Node) -> None:
        if node.powered:
            rival.stop(node)
        else:
            node.boot()

    lab.on_both(put_away)
    return done


def settle(rival: Rival) -> Node:
    """Waits until both nodes take part; returns the one that has the address."""
    what = f"{rival.title} settled"
    holder = until(rival.settled, what, within=SETTLE_SECONDS, every=0.2, hint="build/takeover/")
    assert holder is not None
    return holder
