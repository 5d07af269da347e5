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
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tests.bench.takeover import layer, report
from tests.bench.takeover.cut import CUTS_A_TURN, Cut, turn
from tests.bench.takeover.rivals import Rival, everyone, versions
from tests.lab.cluster import Pair
from tests.lab.command import LabError
from tests.lab.lab import Lab
from tests.lab.place import BUILD, PROJECT, Place


def measure(lab: Lab, rivals: list[Rival], rounds: int, directory: Path) -> list[Cut]:
    """`rounds` cuts of every rival. What was measured is in `cuts.json` whatever happens."""
    done: list[Cut] = []
    for number, before in enumerate(range(0, rounds, CUTS_A_TURN)):
        print(f"from cut {before + 1} of {rounds}; load {os.getloadavg()[0]:.1f}", flush=True)
        first = number % len(rivals)
        for rival in rivals[first:] + rivals[:first]:
            cuts = min(CUTS_A_TURN, rounds - before)
            done += turn(lab, rival, cuts, directory / "answers.log")
            (directory / "cuts.json").write_text(json.dumps([asdict(c) for c in done], indent=1))
    return done


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python3 -m tests.bench.takeover", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="power cuts of each rival")
    parser.add_argument("--docs", type=Path, default=PROJECT / "docs", help="where to write it")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    chosen = options(arguments)
    directory = BUILD / "takeover"
    directory.mkdir(parents=True, exist_ok=True)
    load_average = os.getloadavg()[0]
    place = Place.from_environment()
    lab = Lab(place, (layer.provide(place.cache),))
    pair = Pair(lab)
    try:
        lab.up(owned=True)
        rivals = everyone(pair)
        cuts = measure(lab, rivals, chosen.rounds, directory)
        report.write(rivals, cuts, versions(lab.a), load_average, chosen.docs)
    except LabError as err:
        pair.save_evidence(directory)
        print(f"error: {err}\nevidence: {directory}", file=sys.stderr)
        return 1
    finally:
        lab.down()
    print(f"written: {chosen.docs}/takeover.md and takeover.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
