# SPDX-License-Identifier: Apache-2.0
"""The tables, and docs/benchmarks.md around them."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from statistics import median

from tests.bench.bars import BARS, Rates, ratio
from tests.bench.command import run
from tests.bench.loads import LOADS
from tests.bench.machine import kernel, processor
from tests.bench.places import MODES, TITLES
from tests.bench.postgres import BIN, SCALE

PLACES = tuple(TITLES)
TEXT = Path(__file__).with_name("benchmarks.md.in")
FINDINGS = Path(__file__).with_name("findings.md")
"""What the time goes to where a bar is not met: found with a profiler, written by hand."""


def number(value: float) -> str:
    """As a table shows it: three digits are enough where there are fewer than that."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def cell(values: list[float] | None) -> str:
    if not values:
        return "–"
    return f"{number(median(values))} ({number(min(values))}–{number(max(values))})"


def table(rates: Rates) -> str:
    """Markdown: medians with (smallest–largest)."""
    shown = [place for place in PLACES if any(place == measured for _, measured in rates)]
    heads = ["load", "unit", *(TITLES[place] for place in shown)]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for load in LOADS:
        cells = [cell(rates.get((load.name, place))) for place in shown]
        if any(load.name == measured for measured, _ in rates):
            lines.append("| " + " | ".join([load.title, load.unit, *cells]) + " |")
    return "\n".join(lines)


def bars(rates: Rates) -> str:
    """Markdown: what was to be reached by the first of haoperator's modes, and what was."""
    titles = {load.name: load.title for load in LOADS}
    lines = ["| load | compared with | at least | measured | met |", "|---|---|---|---|---|"]
    for bar in BARS:
        found = ratio(rates, bar.load, MODES[0].name, bar.place)
        if found is not None:
            met = "yes" if found >= bar.least else "**no**"
            lines.append(
                f"| {titles[bar.load]} | {TITLES[bar.place]} "
                f"| {bar.least:g} | {found:.2f} | {met} |"
            )
    return "\n".join(lines)


def write(rates: Rates, rounds: int, load_average: float, docs: Path) -> None:
    """Write docs/benchmarks.md."""
    text = TEXT.read_text(encoding="utf-8").format(
        table=table(rates),
        bars=bars(rates),
        findings=FINDINGS.read_text(encoding="utf-8").strip(),
        rounds=rounds,
        untar_rounds=min(rounds, next(load.most_rounds for load in LOADS if load.name == "untar")),
        scale=SCALE,
        gluster=run("glusterfs", "--version").split()[1],
        postgres=run(BIN / "postgres", "--version").split()[2],
        cpus=os.cpu_count(),
        processor=processor(),
        kernel=kernel(),
        python=platform.python_version(),
        load_average=load_average,
    )
    (docs / "benchmarks.md").write_text(text, encoding="utf-8")
