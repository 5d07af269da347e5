# SPDX-License-Identifier: Apache-2.0
"""Raw ext4, the bare limit and a synced haoperator mount, side by side in one run.

Two journaled ext4 images behind loop devices are the disks of the two nodes. The places
take turns, load by load and round by round, so that what else the machine does meets all
of them alike.
"""

from __future__ import annotations

import contextlib
import filecmp
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.bench.report import LOADS, Rates, table, write_report
from tests.replica.pair import ROOT, Pair, abort_all
from tests.replica.spawner import Spawner

ROUNDS = 5
STUCK_SECONDS = 40.0
IMAGE_BYTES = 2 << 30


def run(*command: str | Path) -> str:
    """Run a command and return what it printed.

    One that is stuck in a mount whose server does not answer cannot be killed, so the
    mounts are aborted first, and it fails by itself.
    """
    stuck = threading.Timer(STUCK_SECONDS, abort_all)
    stuck.start()
    try:
        done = subprocess.run(
            command,
            check=True,
            timeout=STUCK_SECONDS + 10,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
    finally:
        stuck.cancel()
    return done.stdout


@contextlib.contextmanager
def disk(base: Path, node: str) -> Iterator[Path]:
    """A fresh ext4 with a journal for one node, mounted for the time of the block."""
    image, point = base / f"{node}.img", base / node
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    eager = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
    run("mkfs.ext4", "-q", "-F", "-O", "has_journal", "-E", eager, image)
    point.mkdir()
    run("mount", "-o", "loop", image, point)
    try:
        yield point
    finally:
        try:
            run("umount", point)
        except subprocess.CalledProcessError:  # a killed process may be about to let go
            run("umount", "--lazy", point)


@contextlib.contextmanager
def places(base: Path) -> Iterator[tuple[Path, Path, Pair]]:
    """The raw directory on each node's disk, and the pair: a primary, b its standby."""
    with contextlib.ExitStack() as stack:
        raw = [stack.enter_context(disk(base, node)) / "raw" for node in "ab"]
        for directory in raw:
            directory.mkdir()
        # ^C is for this process alone: it cleans up, and for that the replicators must live.
        interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
        spawner = Spawner()
        signal.signal(signal.SIGINT, interrupt)
        stack.callback(spawner.close)
        pair = Pair(base, spawner, detect_seconds=5.0)
        stack.callback(pair.stop)
        pair.replicate()
        yield raw[0], raw[1], pair


def measure(base: Path) -> Rates:
    """All rounds of all loads; the copies must be equal in the end."""
    loads = base / "loads"
    run("gcc", "-O2", "-Wall", "-Werror", "-o", loads, Path(__file__).with_name("loads.c"))
    rates: Rates = {}
    with places(base) as (raw, peer, pair):
        for directory in (raw, peer, pair.a.path):
            run(loads, "prepare", directory)
        for turn in range(ROUNDS):
            for load in LOADS:
                # The mount's first read is served by an ext4 that has the file in memory.
                raw_name = "read-warm" if load.name == "read" else load.name
                commands: list[tuple[str, tuple[str | Path, ...]]] = [
                    ("raw", (raw_name, raw)),
                    ("haoperator", (load.name, pair.a.path)),
                ]
                if load.bare:
                    commands.append(("bare", (load.name, raw, peer)))
                first = turn % len(commands)
                for place, command in commands[first:] + commands[:first]:
                    for point in (raw, peer):  # what others left to be written
                        run("sync", "--file-system", point)
                    rate = float(run(loads, *command))
                    rates.setdefault((load.name, place), []).append(rate)
            print(f"round {turn + 1} of {ROUNDS}", file=sys.stderr, flush=True)
        for node in (pair.a, pair.b):
            node.wait_stream("synced")
        ours, theirs = (node.backing / "prepared" for node in (pair.a, pair.b))
        if not filecmp.cmp(ours, theirs, shallow=False):
            raise RuntimeError("the copies differ: what was measured is worth nothing")
    return rates


def main() -> None:
    if os.geteuid() != 0:
        sys.exit("The measurements mount file systems: run them as root.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that all is cleaned up
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="haoperator-bench-", dir="/var/tmp") as base:
        rates = measure(Path(base))
    print(table(rates))
    write_report(rates, ROUNDS, before, ROOT / "docs")


if __name__ == "__main__":
    main()
