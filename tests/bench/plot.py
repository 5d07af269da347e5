# SPDX-License-Identifier: Apache-2.0
"""docs/benchmarks.png: one panel a group of loads, everything relative to one place."""

from __future__ import annotations

import importlib
from itertools import groupby
from pathlib import Path
from typing import Any

from tests.bench.bars import BARS, Rates, ratio
from tests.bench.loads import LOADS, Load
from tests.bench.places import MODES, TITLES

BASE = "gluster-sync"
COLOURS = {"raw": "#c9c9c9", "bare": "#8f8f8f", "gluster": "#e3b36a", "gluster-sync": "#c98a2b"}
OURS = ("#2f6f9f", "#79b0d6")
WIDTH = 0.15


def _panel(axes: Any, rates: Rates, title: str, loads: list[Load], shown: list[str]) -> None:
    colours = COLOURS | dict(zip((mode.name for mode in MODES), OURS, strict=False))
    for n, place in enumerate(shown):
        shift = (n - (len(shown) - 1) / 2) * WIDTH
        bars = [(at, ratio(rates, load.name, place, BASE)) for at, load in enumerate(loads)]
        drawn = [(at + shift, value) for at, value in bars if value is not None]
        painted = axes.barh(
            [at for at, _ in drawn],
            [value for _, value in drawn],
            WIDTH * 0.92,
            color=colours[place],
            label=TITLES[place].replace("`", ""),
        )
        labels = [f"{value:.0f}" if value >= 20 else f"{value:.2g}" for _, value in drawn]
        axes.bar_label(painted, labels, padding=3, fontsize=8)
    for at, load in enumerate(loads):
        for bar in BARS:
            if bar.load == load.name and bar.place == BASE:
                axes.plot([bar.least] * 2, [at - 0.42, at + 0.42], color="#b3261e", linewidth=1.5)
    axes.set_title(title, loc="left", fontsize=11)
    axes.set_yticks(range(len(loads)), [load.title for load in loads])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.12)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)


def draw(rates: Rates, path: Path) -> None:
    """Draw the picture. Raises ModuleNotFoundError without matplotlib."""
    importlib.import_module("matplotlib").use("Agg")
    plt = importlib.import_module("matplotlib.pyplot")
    lines = importlib.import_module("matplotlib.lines")
    panels = [(title, list(loads)) for title, loads in groupby(LOADS, lambda load: load.group)]
    shown = [place for place in TITLES if any(place == measured for _, measured in rates)]
    figure, rows = plt.subplots(len(panels), figsize=(10, 13), layout="constrained")
    for axes, (title, loads) in zip(rows, panels, strict=True):
        _panel(axes, rates, title, loads, shown)
    rows[-1].set_xlabel(f"times the speed of {TITLES[BASE]} (logarithmic)")
    handles, labels = rows[0].get_legend_handles_labels()
    handles.append(lines.Line2D([], [], color="#b3261e", linewidth=1.5))
    labels.append("to be reached by haoperator")
    above = {"loc": "lower center", "bbox_to_anchor": (0.4, 1.1), "ncols": 3, "frameon": False}
    rows[0].legend(handles, labels, **above)
    figure.savefig(path, dpi=110)
    plt.close(figure)
