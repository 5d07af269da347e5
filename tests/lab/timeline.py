# SPDX-License-Identifier: Apache-2.0
"""The picture of a run: who was what when, where the VIP was, and what the client got.

Colours are SafeKit's: red for WAIT, orange for a transition, green for the three
states in which a node does its duty, grey for what is off.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .bus import Signal
from .customer import Seen

GREENS = {"PRIM": "#1f8a3b", "ALONE": "#57b26a", "SECOND": "#a3d9ae"}
COLOURS = GREENS | {"WAIT": "#d64545", "TRANSITION": "#f29d38", "STOP": "#9aa0a6"}
DARK, OFF, INK, LINE = "#2f3437", "#5f666b", "#20262b", "#3b6fb6"
VIP_COLOURS = {"node-a": "#3b6fb6", "node-b": "#8456b3"}
BIN = 0.2
"""Seconds; the client's writes are counted in bins of this width."""


@dataclass(frozen=True, slots=True)
class Span:
    """A node was in one state from `begin` to `end`."""

    begin: float
    end: float
    state: str


@dataclass(frozen=True, slots=True)
class Picture:
    """All that is drawn. Times in seconds of the real-time clock."""

    begin: float
    end: float
    spans: dict[str, list[Span]]
    seen: Seen
    events: list[tuple[float, str]]
    zooms: list[tuple[str, float, float, list[tuple[float, str]]]]
    """Title, begin and end of a detail, and the moments that are named in it."""


def spans_of(
    node: str,
    first: str,
    begin: float,
    end: float,
    signals: Iterable[Signal],
    power: list[tuple[float, str]],
) -> list[Span]:
    """The states of a node between two moments, from its `Transitioned` signals.

    `power` has the moments at which it lost its power ("off") or got it ("boot").
    """
    changes = list(power)
    for s in signals:
        if s.node == node and s.member == "Transitioned":
            changes.append((s.time, str(s.body[1])))
    spans = []
    at, state = begin, first
    for moment, new in sorted(changes):
        if not begin <= moment <= end or new == state:
            continue
        spans.append(Span(at, moment, state))
        at, state = moment, new
    spans.append(Span(at, end, state))
    return [s for s in spans if s.end > s.begin]


def draw(picture: Picture, path: Path) -> None:
    """Writes the picture as a PNG."""
    import matplotlib  # type: ignore[import-untyped]

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt  # type: ignore[import-untyped]

    plt.rcParams |= {"font.size": 9, "axes.edgecolor": "#8a9299", "text.color": INK}
    figure = plt.figure(figsize=(14, 8.2), dpi=120, facecolor="white")
    rows = 3 if picture.zooms else 2
    grid = figure.add_gridspec(
        rows,
        max(1, len(picture.zooms)),
        height_ratios=[1.15, 1.5, 1.75][:rows],
        hspace=0.32,
        wspace=0.12,
        left=0.075,
        right=0.985,
        top=0.865,
        bottom=0.07,
    )
    bands = figure.add_subplot(grid[0, :])
    writes = figure.add_subplot(grid[1, :], sharex=bands)
    _bands(bands, picture)
    _writes(writes, picture)
    _events(bands, writes, picture)
    for column, zoom in enumerate(picture.zooms):
        _zoom(figure.add_subplot(grid[2, column]), picture, *zoom)
    figure.suptitle(
        "haoperator: a power cut, a failback and a swap under a client that writes",
        x=0.075,
        y=0.975,
        ha="left",
        fontsize=13,
        fontweight="bold",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    plt.close(figure)


def _bands(axes: Any, picture: Picture) -> None:
    zero = picture.begin
    rows = [*picture.spans, "VIP"]
    for row, node in enumerate(rows):
        spans = _vip_spans(picture) if node == "VIP" else picture.spans[node]
        for span in spans:
            _box(axes, span, row, zero, picture.end - zero)
    axes.set_yticks(range(len(rows)), rows)
    axes.set_ylim(len(rows) - 0.45, -0.55)
    axes.set_xlim(0, picture.end - zero)
    axes.tick_params(labelbottom=False, length=0)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)


def _box(axes: Any, span: Span, row: int, zero: float, total: float) -> None:
    off = span.state in ("off", "boot")
    colour = COLOURS.get(span.state) or VIP_COLOURS.get(span.state) or OFF
    width = span.end - span.begin
    axes.barh(
        row,
        width,
        left=span.begin - zero,
        height=0.72,
        color=DARK if span.state == "off" else colour,
        hatch="////" if span.state == "boot" else None,
        edgecolor="white",
        linewidth=0.8,
    )
    text = {"off": "no power", "boot": "booting", "": "–", "TRANSITION": "transition"}
    label = text.get(span.state, span.state)
    # Some 0.0085 of the width is one letter at this size.
    if width / total > 0.0085 * len(label):
        light = span.state in ("SECOND", "ALONE", "TRANSITION") and not off
        axes.text(
            span.begin - zero + width / 2,
            row,
            label,
            ha="center",
            va="center",
            fontweight="bold",
            color=INK if light else "white",
        )


def _vip_spans(picture: Picture) -> list[Span]:
    moves = [m for m in picture.seen.moves if m[0] <= picture.end]
    spans = []
    for i, (moment, owner) in enumerate(moves):
        end = moves[i + 1][0] if i + 1 < len(moves) else picture.end
        begin = max(moment, picture.begin)
        if end > begin:
            spans.append(Span(begin, end, owner))
    return spans


def _histogram(
    acks: list[float], begin: float, end: float, width: float
) -> tuple[list[float], list[float]]:
    """Middles of the bins from `begin` on, and writes a second in each."""
    bins = max(1, int((end - begin) / width))
    counts = [0] * bins
    for t in acks:
        if begin <= t < begin + bins * width:
            counts[min(bins - 1, int((t - begin) / width))] += 1
    return [(i + 0.5) * width for i in range(bins)], [c / width for c in counts]


def _writes(axes: Any, picture: Picture) -> None:
    x, y = _histogram(picture.seen.acks, picture.begin, picture.end, BIN)
    axes.fill_between(x, y, step="mid", color=LINE, alpha=0.28, linewidth=0)
    axes.step(x, y, where="mid", color=LINE, linewidth=1)
    axes.set_ylim(0, max([*y, 1]) * 1.12)
    axes.set_ylabel("acknowledged\nwrites a second")
    axes.set_xlabel("seconds", loc="right", labelpad=1)
    axes.grid(axis="y", color="#e3e7ea", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _events(bands: Any, writes: Any, picture: Picture) -> None:
    """Numbered lines through both panels; the numbers are explained above them."""
    zero, total = picture.begin, picture.end - picture.begin
    legend = []
    taken = -1.0
    for number, (moment, what) in enumerate(sorted(picture.events), 1):
        at = moment - zero
        for axes in (bands, writes):
            axes.axvline(at, color=INK, linewidth=0.8, linestyle=(0, (3, 3)), alpha=0.75)
        shown = max(at, taken + total * 0.012)
        taken = shown
        bands.annotate(
            str(number),
            (shown, -0.62),
            ha="center",
            va="bottom",
            fontsize=7.5,
            fontweight="bold",
            color="white",
            bbox={"boxstyle": "circle,pad=0.22", "facecolor": INK, "edgecolor": "none"},
            annotation_clip=False,
        )
        legend.append(f"{number} {what}")
    bands.figure.text(0.075, 0.925, "    ".join(legend), fontsize=8.5, color="#454d54")


def _zoom(
    axes: Any,
    picture: Picture,
    title: str,
    begin: float,
    end: float,
    moments: list[tuple[float, str]],
) -> None:
    """A detail in milliseconds from the first named moment: every answer is a tick."""
    zero = moments[0][0]
    for row, (node, spans) in enumerate(picture.spans.items()):
        for span in spans:
            left, right = max(span.begin, begin), min(span.end, end)
            if right > left:
                clipped = Span(zero + (left - zero) * 1e3, zero + (right - zero) * 1e3, span.state)
                _box(axes, clipped, row, zero, (end - begin) * 1e3)
        axes.text(-0.012, row, node, transform=axes.get_yaxis_transform(), ha="right", va="center")
    acks = [(t - zero) * 1e3 for t in picture.seen.acks if begin <= t <= end]
    axes.eventplot(acks, lineoffsets=2, linelengths=0.7, colors=LINE, linewidths=0.6)
    axes.text(-0.012, 2, "writes", transform=axes.get_yaxis_transform(), ha="right", va="center")
    for row, (moment, what) in enumerate(moments):
        at = (moment - zero) * 1e3
        height = 2.75 + 0.52 * row
        axes.plot([at, at], [-0.45, height], color=INK, linewidth=0.9, alpha=0.8)
        late = at > (end + begin - 2 * zero) * 500
        axes.annotate(
            f"{what}  {at:+,.0f} ms" if row else what,
            (at, height),
            xytext=(-5 if late else 5, 0),
            textcoords="offset points",
            ha="right" if late else "left",
            va="center",
            fontsize=8.5,
        )
    axes.set_ylim(2.75 + 0.52 * len(moments), -0.55)
    axes.set_xlim((begin - zero) * 1e3, (end - zero) * 1e3)
    axes.set_yticks([])
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold")
    axes.set_xlabel("milliseconds", loc="right", labelpad=1)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
