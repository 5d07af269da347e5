# SPDX-License-Identifier: Apache-2.0
"""`python3 -m tests.bench.resync`: what a resync costs as the tree grows, and beside a writer.

Writes docs/resync.md and docs/resync.png. The trees of both nodes are made equal by hand and
said to be so in both records, since the first synchronisation is not what is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from haoperator.replica.intent import IntentLog
from tests.replica.pair import ROOT, Node, Pair
from tests.replica.spawner import Spawner
from tests.replica.test_roles import fresh

IN_A_DIRECTORY = 1000
SPARSE = 20 << 30
MIB = 1024 * 1024
Times = list[tuple[float, float]]
"""Of each write: when it began, and how long it took; in seconds."""


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def make_equal(pair: Pair, files: int) -> None:
    """Both nodes hold the same tree of so many files, and know it."""
    for node in (pair.a, pair.b):
        for number in range(files):
            directory = node.path / f"d{number // IN_A_DIRECTORY}"
            if number % IN_A_DIRECTORY == 0:
                directory.mkdir()
            os.mknod(directory / f"f{number}")
            if number % 100_000 == 99_999:
                tell(f"  {node.name}: {number + 1:,} files")
        with open(node.path / "sparse", "wb") as file:
            file.truncate(SPARSE)
        record = Path(node.settings["record_path"])
        record.write_text(
            json.dumps(
                {
                    "generation": "a" * 16,
                    "history": [],
                    "consistent": True,
                    "up_to_date": True,
                    "last_primary": node is pair.a,
                    "peer_outdated": False,
                    "base": "b" * 16,
                }
            )
        )
        IntentLog(record.with_name("intent-log"))


@contextmanager
def equal_pair(files: int) -> Iterator[Pair]:
    with tempfile.TemporaryDirectory(prefix="haoperator-bench-") as name:
        spawner = Spawner()
        pair = Pair(Path(name), spawner)
        try:
            make_equal(pair, files)
            pair.start()
            yield pair
        finally:
            pair.stop()
            spawner.close()


def seconds_until_synced(pair: Pair, began: float) -> float:
    for node in (pair.a, pair.b):
        while node.stream != "synced":
            time.sleep(0.001)
    return time.monotonic() - began


def progress(node: Node) -> tuple[int, int]:
    (directory,) = node.state["directories"]
    return directory["resync_compared_bytes"], directory["resync_copied_bytes"]


@dataclass(slots=True)
class Costs:
    """Of one size of tree, in seconds and bytes."""

    files: int
    join: float = 0.0
    rejoin: float = 0.0
    compared: int = 0
    copied: int = 0
    takeover: float = 0.0


def measure_size(files: int) -> Costs:
    tell(f"a tree of {files:,} files and one of 20 GB")
    costs = Costs(files)
    with equal_pair(files) as pair:
        a, b = pair.a, pair.b
        began = time.monotonic()
        a.call("become_primary", generation="")
        costs.join = seconds_until_synced(pair, began)
        b.power_cut()
        a.wait_stream("held")
        a.call("continue_alone", generation=fresh())
        for number in range(0, min(files, 10 * IN_A_DIRECTORY), IN_A_DIRECTORY // 10):
            (a.path / f"d{number // IN_A_DIRECTORY}" / f"f{number}").write_bytes(b"changed")
        with open(a.path / "sparse", "r+b") as file:
            for place in (3, 17):
                file.seek(place << 30)
                file.write(b"changed")
        b.start()
        b.mount()
        costs.rejoin = seconds_until_synced(pair, time.monotonic())
        costs.compared, costs.copied = progress(a)
        a.power_cut()
        b.wait_stream("lost")
        began = time.monotonic()
        b.call("become_primary", generation=fresh())
        (b.path / "first").write_bytes(b"after the takeover")
        costs.takeover = time.monotonic() - began
    return costs


class Application:
    """Writes 4 KiB, waits a millisecond, and so on; every write waits for the peer."""

    def __init__(self, path: Path) -> None:
        self.times: Times = []
        self._path = path
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def _write(self) -> None:
        data = os.urandom(4096)
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT)
        place = 0
        while not self._stop.wait(0.001):
            began = time.monotonic()
            os.pwrite(fd, data, place % (16 * MIB))
            self.times.append((began, time.monotonic() - began))
            place += 4096
        os.close(fd)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


def percentile(times: Times, share: float) -> float:
    ordered = sorted(took for _, took in times)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def measure_beside(megabytes: int, seconds: float) -> tuple[Times, Times, float]:
    """Latencies without and with a resync, and how long that took."""
    tell(f"a resync of {megabytes} MiB beside a writer")
    with equal_pair(1) as pair:
        a, b = pair.a, pair.b
        a.call("become_primary", generation="")
        seconds_until_synced(pair, time.monotonic())
        application = Application(a.path / "log")
        time.sleep(seconds)
        application.stop()
        before = application.times[100:]
        b.power_cut()
        a.wait_stream("held")
        a.call("continue_alone", generation=fresh())
        with open(a.path / "large", "wb") as file:
            for _ in range(megabytes):
                file.write(os.urandom(MIB))
        b.start()
        b.mount()
        while a.stream != "resync":
            time.sleep(0.001)
        application = Application(a.path / "log")
        began = time.monotonic()
        took = seconds_until_synced(pair, began)
        application.stop()
        return before, application.times, took


def plot(before: Times, during: Times, target: Path) -> None:
    import matplotlib  # type: ignore[import-untyped]

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 4), constrained_layout=True)
    for times, label, colour in (
        (before, "no resync", "tab:green"),
        (during, "beside a resync", "tab:orange"),
    ):
        start = times[0][0]
        axes.plot(
            [began - start for began, _ in times],
            [took * 1e3 for _, took in times],
            ".",
            markersize=2,
            color=colour,
            label=f"{label}: 99 % below {percentile(times, 0.99) * 1e3:.2f} ms",
        )
    axes.set_yscale("log")
    axes.set_xlabel("seconds")
    axes.set_ylabel("a 4 KiB write, ms")
    axes.set_title("How long a replicated write takes")
    axes.legend(loc="upper right")
    axes.grid(visible=True, alpha=0.3)
    figure.savefig(target, dpi=110)


def text(sizes: list[Costs], before: Times, during: Times, took: float, megabytes: int) -> str:
    rows = "".join(
        f"| {c.files:,} | {c.join:.2f} s | {c.rejoin:.2f} s | {c.compared / MIB:.1f} MiB "
        f"| {c.copied / 1024:.0f} KiB | {c.takeover * 1e3:.0f} ms |\n"
        for c in sizes
    )
    latencies = "".join(
        f"| {label} | {statistics.median(t for _, t in times) * 1e6:.0f} µs "
        f"| {percentile(times, 0.99) * 1e6:.0f} µs | {percentile(times, 0.999) * 1e6:.0f} µs |\n"
        for label, times in (("without a resync", before), ("beside a resync", during))
    )
    ratio = percentile(during, 0.99) / percentile(before, 0.99)
    return f"""# Resync

Written by `python3 -m tests.bench.resync`. Both replicators and the load share
{os.cpu_count()} CPUs and one disk; Linux {os.uname().release.split("-")[0]}.

## As the tree grows

Each tree has, besides so many files, one sparse file of 20 GB. *Join*: both nodes start in
order, until the pair is synced. *Rejoin*: the standby lost its power, 100 files and two places
in the large file were changed, it comes back; until synced. *Takeover*: the primary lost its
power; from the command to the first write that returned.

| files | join | rejoin | compared | copied | takeover |
|---|---|---|---|---|---|
{rows}
## Beside an application

One writer, 4 KiB at a time, each of which waits for the peer, with a millisecond in between;
meanwhile {megabytes} MiB are brought to the standby, in {took:.1f} s. The promise is that the
99th percentile at most doubles; here it is {ratio:.2f} times what it is without.

| writes | median | 99 % | 99.9 % |
|---|---|---|---|
{latencies}
![How long a replicated write takes](resync.png)
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python3 -m tests.bench.resync")
    parser.add_argument("--files", type=int, nargs="*", default=[1_000, 100_000, 1_000_000])
    parser.add_argument("--megabytes", type=int, default=2048)
    args = parser.parse_args()
    sizes: list[Any] = [measure_size(files) for files in args.files]
    before, during, took = measure_beside(args.megabytes, 10.0)
    plot(before, during, ROOT / "docs" / "resync.png")
    (ROOT / "docs" / "resync.md").write_text(text(sizes, before, during, took, args.megabytes))
    tell("docs/resync.md and docs/resync.png are written")


if __name__ == "__main__":
    main()
