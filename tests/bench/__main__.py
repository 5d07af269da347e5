# SPDX-License-Identifier: Apache-2.0
"""`python3 -m tests.bench`: every load in every place, side by side in one run.

The places take turns, load by load and round by round, so that what else the machine
does meets all of them alike. Everything is mounted in a mount namespace of this process's
own; nothing is left when it ends, also after ^C.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.bench import archive, plot, report
from tests.bench.bars import Rates
from tests.bench.command import run
from tests.bench.disks import disk
from tests.bench.loads import LOADS, Load, Tools
from tests.bench.places import TITLES, Place, places
from tests.bench.postgres import servers
from tests.replica.pair import ROOT

ROUNDS = 5
MARK = "HAOPERATOR_BENCH_OWN_MOUNTS"


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def in_own_mount_namespace() -> None:
    """Go on in one: mounts and loop devices end with the last process in it."""
    if MARK not in os.environ:
        os.environ[MARK] = "1"
        command = ["unshare", "--mount", "--propagation", "private", "--", sys.executable]
        os.execvp(command[0], [*command, "-m", "tests.bench", *sys.argv[1:]])


@contextlib.contextmanager
def prepared(base: Path, found: list[Place], loads: list[Load]) -> Iterator[Tools]:
    """Everything that the loads need, in every place."""
    tools = Tools(base / "loads", base / "tree.tar")
    source = Path(__file__).with_name("loads.c")
    run("gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", tools.loads, source)
    archive.make(tools.tar)
    for place in found:
        for directory in filter(None, (place.path, place.peer)):
            run(tools.loads, "prepare", directory)
    with contextlib.ExitStack() as stack:
        if any(load.name == "pgbench" for load in loads):
            tell("making the databases")
            at = [place for place in found if place.peer is None]
            running = stack.enter_context(servers(base, [place.path for place in at]))
            names = [place.name for place in at]
            tools.servers = dict(zip(names, running, strict=True))
        yield tools


def measure(base: Path, loads: list[Load], wanted: set[str], rounds: int) -> Rates:
    """All rounds of all loads."""
    rates: Rates = {}
    with contextlib.ExitStack() as stack:
        disks = (stack.enter_context(disk(base, "a")), stack.enter_context(disk(base, "b")))
        tell("starting what is compared")
        found = stack.enter_context(places(base, disks, wanted))
        tools = stack.enter_context(prepared(base, found, loads))
        for turn in range(rounds):
            for load in [load for load in loads if turn < load.most_rounds]:
                said = []
                first = turn % len(found)
                for place in found[first:] + found[:first]:
                    if place.peer is not None and not load.bare:
                        continue
                    for point in disks:  # what others left to be written
                        run("sync", "--file-system", point)
                    rate = load.run(tools, load.name, place)
                    rates.setdefault((load.name, place.name), []).append(rate)
                    said.append(f"{place.name} {report.number(rate)}")
                clock = time.strftime("%H:%M:%S")
                tell(f"{clock} round {turn + 1}/{rounds} {load.name}: {', '.join(sorted(said))}")
    return rates


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python3 -m tests.bench", description=__doc__)
    names = [load.name for load in LOADS]
    parser.add_argument("--only", action="append", choices=names, metavar="LOAD",
                        help=f"just this one, may be repeated: {', '.join(names)}")  # fmt: skip
    parser.add_argument("--place", action="append", choices=list(TITLES), metavar="PLACE",
                        help=f"just this one, may be repeated: {', '.join(TITLES)}")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--json", type=Path, help="write what was measured to a file, too")
    return parser.parse_args()


def main() -> None:
    chosen = options()
    if os.geteuid() != 0:
        sys.exit("The measurements mount file systems: run them as root.")
    in_own_mount_namespace()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that all is cleaned up
    loads = [load for load in LOADS if not chosen.only or load.name in chosen.only]
    wanted = set(chosen.place or TITLES)
    rounds = 1 if chosen.quick else chosen.rounds
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="haoperator-bench-", dir="/var/tmp") as name:
        base = Path(name)
        base.chmod(0o755)  # PostgreSQL does not run as root
        rates = measure(base, loads, wanted, rounds)
    print(report.table(rates), report.bars(rates), sep="\n\n")
    if chosen.json:
        kept = {f"{load}/{place}": values for (load, place), values in rates.items()}
        chosen.json.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    if not (chosen.only or chosen.place or chosen.quick):
        report.write(rates, rounds, before, ROOT / "docs")
        plot.draw(rates, ROOT / "docs" / "benchmarks.png")
        tell("written: docs/benchmarks.md and docs/benchmarks.png")


if __name__ == "__main__":
    main()
