# SPDX-License-Identifier: Apache-2.0
"""docs/takeover.png: a strip for each rival, a point for each power cut."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

OURS, OTHERS = "#2f6f9f", "#c98a2b"
SPREAD = 0.28
"""Half the height of a strip: the points of one stand in the order of the cuts."""


def draw(titles: Mapping[str, str], times: Mapping[str, Sequence[float]], path: Path) -> None:
    """Draw the picture. Raises ModuleNotFoundError without matplotlib."""
    importlib.import_module("matplotlib").use("Agg")
    plt = importlib.import_module("matplotlib.pyplot")
    figure, axes = plt.subplots(figsize=(10, 4.2), layout="constrained")
    for row, (name, title) in enumerate(titles.items()):
        took = times[name]
        colour = OURS if title.startswith("haoperator") else OTHERS
        steps = [SPREAD * (2 * (n + 0.5) / len(took) - 1) for n in range(len(took))]
        axes.scatter(took, [row + step for step in steps], s=14, color=colour, alpha=0.7)
        middle = median(took)
        axes.plot([middle] * 2, [row - 0.4, row + 0.4], color="black", linewidth=1.5)
        label = f"{middle:.2f} s, worst {max(took):.2f} s"
        axes.text(max(took) + 0.12, row, label, va="center", fontsize=9)
    axes.set_yticks(range(len(titles)), titles.values())
    axes.invert_yaxis()
    axes.set_xlim(0, max(max(took) for took in times.values()) * 1.28)
    axes.set_xlabel("seconds from the power cut until the virtual IP answers (line: median)")
    axes.grid(axis="x", color="#e3e7ea", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)
