# SPDX-License-Identifier: Apache-2.0
"""The table, docs/benchmarks.md and docs/benchmarks.png."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

Rates = dict[tuple[str, str], list[float]]
"""(load, place) → what each round measured."""


@dataclass(frozen=True)
class Load:
    """One load; `bare` says that the bare limit is measured for it too."""

    name: str
    title: str
    unit: str
    bare: bool = False


LOADS = (
    Load("write", "4 KiB sequential write, 1 writer", "op/s", bare=True),
    Load("write8", "4 KiB sequential write, 8 writers", "op/s"),
    Load("synced", "4 KiB random write + fdatasync, 1 writer", "op/s", bare=True),
    Load("large", "1 MiB sequential write, one fsync", "MB/s"),
    Load("read", "1 MiB sequential first read", "MB/s"),
    Load("files", "create + write 4 KiB + fsync + close", "files/s"),
)

TEXT = """\
# Benchmarks

What a mount of haoperator with a synchronous standby costs, next to the ext4 below it.
Written by `make bench`; medians of {rounds} runs, with the smallest and the largest.

{table}

![Speed relative to raw ext4](benchmarks.png)

## What was measured

- **raw ext4**: a directory of the file system that the primary's copy lies on.
- **haoperator**: the mount of a primary whose standby is `synced`. A write returns when the
  standby has it too (durability `write`); an fsync is an fsync on both nodes.
- **bare limit**: two small C processes that do `pwrite`, send over TCP on loopback, `pwrite`
  at the peer, acknowledge (and `fdatasync` on both sides at the same time, where the load
  has one). No FUSE, no names, no order between files, no recovery: what is left between it
  and raw ext4 is the price of any synchronous copy on this machine.

The nodes are two real replicator processes on one machine. Each has a journaled ext4 image
of its own behind a loop device; raw ext4 shares the primary's. The places take turns within
every round, and both file systems are synced before each run. A run is a fixed amount of
work by a C program ([tests/bench/loads.c](../tests/bench/loads.c)), the same in every place:

- 4 KiB sequential: 16,384 writes into a fresh file, or 8 processes with 4,096 each and a file
  each; no fsync.
- random + fdatasync: 800 times in a file of 128 MiB.
- 1 MiB: 128 MiB, into a fresh file, one fsync at the end and within the time.
- first read: 128 MiB after the mount's page cache was dropped. The ext4 below it still has
  the file in memory, and so has raw ext4: the difference is the way through FUSE, no disk.
  A second read comes from the kernel's page cache in both places.
- small files: 500 of them, one after the other, in one directory.

At the end both nodes are still `synced`, and a file that was overwritten in all rounds is
compared byte by byte between them.

## Where

{cpus} CPUs, Linux {kernel}, Python {python}; load average {before:.1f} before the start.

## Caveats

- Both copies, both replicators and the load share {cpus} CPUs and one disk. Two servers have
  twice of both, and a network with a latency that loopback does not have.
- Runs are short, and a machine does other things too: compare within the table, look at the
  spread, and do not compare with a table of another day.
- The bare pair without fsync can swing several times between runs, and so can one writer on
  the mount; the cause is not established. Where their spreads overlap, the ratio of the two
  says nothing, and a ratio above 1 does not mean that haoperator beats the limit.
- Raw ext4 without fsync measures memory. It promises nothing when the power fails; the
  mount's write is at least in the memory of two machines.
"""


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _cell(values: list[float] | None) -> str:
    if not values:
        return "–"
    return f"{_number(median(values))} ({_number(min(values))}–{_number(max(values))})"


def _ratio(rates: Rates, load: Load, place: str, to: str) -> float | None:
    if (load.name, place) not in rates or (load.name, to) not in rates:
        return None
    return median(rates[load.name, place]) / median(rates[load.name, to])


def table(rates: Rates) -> str:
    """Markdown: medians, (smallest–largest), ratios of the medians."""
    lines = [
        "| load | unit | raw ext4 | bare limit | haoperator | haoperator / raw | / bare limit |",
        "|---|---|---|---|---|---|---|",
    ]
    for load in LOADS:
        cells = [_cell(rates.get((load.name, place))) for place in ("raw", "bare", "haoperator")]
        for to in ("raw", "bare"):
            ratio = _ratio(rates, load, "haoperator", to)
            cells.append("–" if ratio is None else f"{ratio:.2f}")
        lines.append("| " + " | ".join([load.title, load.unit, *cells]) + " |")
    return "\n".join(lines)


def _plot(rates: Rates, path: Path) -> None:
    importlib.import_module("matplotlib").use("Agg")
    plt = importlib.import_module("matplotlib.pyplot")
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for place, label, shift, colour in (
        ("haoperator", "haoperator", -0.2, "#2f6f9f"),
        ("bare", "bare limit (pwrite, TCP, pwrite, ack)", 0.2, "#b8b8b8"),
    ):
        bars = [(n, _ratio(rates, load, place, "raw")) for n, load in enumerate(LOADS)]
        drawn = [
            (n + (shift if LOADS[n].bare else 0), ratio) for n, ratio in bars if ratio is not None
        ]
        painted = axes.barh(
            [at for at, _ in drawn], [r for _, r in drawn], 0.38, label=label, color=colour
        )
        axes.bar_label(painted, fmt="%.2f", padding=3)
    axes.set_yticks(range(len(LOADS)), [load.title for load in LOADS])
    axes.invert_yaxis()
    axes.set_xlim(0, max(1.1, axes.get_xlim()[1]))
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("speed relative to raw ext4 (1 = the same)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def write_report(rates: Rates, rounds: int, before: float, docs: Path) -> None:
    """Write both files into `docs`."""
    text = TEXT.format(
        table=table(rates),
        rounds=rounds,
        cpus=os.cpu_count(),
        kernel=".".join(platform.release().split(".")[:2]),
        python=platform.python_version(),
        before=before,
    )
    (docs / "benchmarks.md").write_text(text, encoding="utf-8")
    try:
        _plot(rates, docs / "benchmarks.png")
    except ModuleNotFoundError as err:
        print(f"No docs/benchmarks.png: {err}", file=sys.stderr)
