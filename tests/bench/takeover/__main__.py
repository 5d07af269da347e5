# SPDX-License-Identifier: Apache-2.0
"""`python3 -m tests.bench.takeover`: from the power cut until the virtual IP answers.

The rivals take turns on the same two nodes, one at a time. In its turn each loses the node
that has the address, gets it back, and loses the other one; then all of it is stopped, and
the next one starts. The order moves on by one with every round of turns, so that what else
the machine does meets all of them alike.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.bench.takeover import layer, report
from tests.bench.takeover.probing import probing
from tests.bench.takeover.report import Cut
from tests.bench.takeover.rivals import Rival, everyone
from tests.lab.cluster import Pair
from tests.lab.command import LabError
from tests.lab.lab import Lab
from tests.lab.node import Node
from tests.lab.place import BUILD, PROJECT, Place
from tests.lab.waiting import until

CUTS_A_TURN = 2
"""One for each node."""
HOLD_SECONDS = (1.5, 2.5)
"""How long a settled pair is left alone before the cut: at any point between two beats."""
SETTLE_SECONDS = 90.0
ANSWER_SECONDS = 60.0


def settle(rival: Rival) -> Node:
    return until(
        rival.settled,
        f"{rival.title} settled",
        within=SETTLE_SECONDS,
        every=0.2,
        hint="the journals in build/takeover/",
    )


def take_over(lab: Lab, rival: Rival, log: Path) -> tuple[Cut, Node]:
    """Cuts the power of the node that has the address; returns what came of it, and that node."""
    holder = settle(rival)
    with probing(lab, log) as probe:
        begin = time.monotonic()
        probe.wait(holder.name, begin, within=10)
        # Not a wait for anything: the pair is watched while nothing happens.
        time.sleep(random.uniform(*HOLD_SECONDS))
        moves = probe.moves()
        died = lab.nodes[probe.answers()[-1][1]]
        survivor = lab.other(died)
        watched = time.monotonic() - begin
        cut = time.monotonic()
        died.power_cut()
        answered = probe.wait(survivor.name, cut, within=ANSWER_SECONDS)
        last = max(t for t, who in probe.answers() if who == died.name)
    return Cut(rival.name, died.name, answered - cut, answered - last, moves, watched), died


def turn(lab: Lab, rival: Rival, cuts: int, directory: Path) -> list[Cut]:
    """The turn of one rival. Nothing of it runs afterwards, and both nodes have power."""
    done: list[Cut] = []
    lab.on_both(rival.start)
    for number in range(cuts):
        cut, died = take_over(lab, rival, directory / "answers.log")
        done.append(cut)
        print(f"{time.strftime('%H:%M:%S')} {rival.title:24} {cut}", flush=True)
        if number + 1 < cuts:
            died.boot()
            rival.start(died)

    def put_away(node: Node) -> None:
        if node.powered:
            rival.stop(node)
        else:
            node.boot()

    lab.on_both(put_away)
    return done


def measure(pair: Pair, rounds: int, directory: Path) -> list[Cut]:
    """`rounds` cuts of every rival. What was measured is in `cuts.json` whatever happens."""
    done: list[Cut] = []
    rivals = everyone(pair)
    for first, before in enumerate(range(0, rounds, CUTS_A_TURN)):
        print(f"cuts {before + 1} and on of {rounds}, load {os.getloadavg()[0]:.1f}", flush=True)
        at = first % len(rivals)
        for rival in rivals[at:] + rivals[:at]:
            done += turn(pair.lab, rival, min(CUTS_A_TURN, rounds - before), directory)
            (directory / "cuts.json").write_text(json.dumps([asdict(c) for c in done], indent=1))
    return done


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m tests.bench.takeover", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="power cuts of each rival")
    parser.add_argument("--docs", type=Path, default=PROJECT / "docs", help="where to write it")
    options = parser.parse_args(arguments)
    directory = BUILD / "takeover"
    directory.mkdir(parents=True, exist_ok=True)
    load = os.getloadavg()[0]
    place = Place.from_environment()
    lab = Lab(place, (layer.provide(place.cache),))
    pair = Pair(lab)
    try:
        lab.up(owned=True)
        cuts = measure(pair, options.rounds, directory)
        report.write(cuts, lab, load, options.docs)
    except LabError as err:
        pair.save_evidence(directory)
        print(f"error: {err}\nevidence: {directory}", file=sys.stderr)
        return 1
    finally:
        lab.down()
    print(f"written: {options.docs}/takeover.md and takeover.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
