# SPDX-License-Identifier: Apache-2.0
"""docs/takeover.md: what was measured, and how."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tests.bench.machine import kernel, processor
from tests.bench.takeover import picture
from tests.bench.takeover.cut import CUTS_A_TURN, HOLD_SECONDS, Cut
from tests.bench.takeover.prober import PERIOD
from tests.bench.takeover.rivals import FAST_DETECT, FASTEST_ADVERT, Rival

TEXT = Path(__file__).with_name("takeover.md.in")
FAST_MARGIN = 0.2
"""What the fast timing may take beside its own `detect`, in seconds."""

Times = dict[str, list[float]]
"""By the name of the rival."""


def times_of(cuts: Sequence[Cut]) -> Times:
    times: Times = {}
    for cut in cuts:
        times.setdefault(cut.rival, []).append(cut.took)
    return times


def table(rivals: Sequence[Rival], cuts: Sequence[Cut]) -> str:
    """Markdown: one line a rival, in seconds."""
    times = times_of(cuts)
    lines = [
        "| | cuts | median | best | worst | moved of its own |",
        "|---|---|---|---|---|---|",
    ]
    for rival in rivals:
        took = times[rival.name]
        own = [cut for cut in cuts if cut.rival == rival.name]
        lines.append(
            f"| {rival.title} | {len(took)} | {median(took):.2f} s | {min(took):.2f} s "
            f"| {max(took):.2f} s | {sum(c.moves for c in own)} in "
            f"{sum(c.watched for c in own):.0f} s |"
        )
    return "\n".join(lines)


def bars(times: Times) -> str:
    """Markdown: what was to be reached, by the medians, and what was."""
    middle = {name: median(took) for name, took in times.items()}
    reached = (
        ("haoperator", "before keepalived", middle["keepalived"]),
        ("haoperator", "before Pacemaker + Corosync", middle["pacemaker"]),
        ("haoperator-fast", f"within {FAST_MARGIN:g} s of `detect`", FAST_DETECT + FAST_MARGIN),
    )
    lines = ["| | to be reached | at most | measured | met |", "|---|---|---|---|---|"]
    for name, what, limit in reached:
        met = "yes" if middle[name] < limit else "**no**"
        title = "haoperator, fast" if name == "haoperator-fast" else "haoperator"
        lines.append(f"| {title} | {what} | {limit:.2f} s | {middle[name]:.2f} s | {met} |")
    return "\n".join(lines)


def write(
    rivals: Sequence[Rival],
    cuts: Sequence[Cut],
    versions: dict[str, str],
    load_average: float,
    docs: Path,
) -> None:
    """Writes takeover.md and takeover.png into `docs`."""
    docs.mkdir(parents=True, exist_ok=True)
    text = TEXT.read_text(encoding="utf-8").format(
        table=table(rivals, cuts),
        bars=bars(times_of(cuts)),
        period=PERIOD * 1000,
        hold=HOLD_SECONDS,
        turn=CUTS_A_TURN,
        advert=FASTEST_ADVERT,
        cpus=os.cpu_count(),
        processor=processor(),
        kernel=kernel(),
        python=platform.python_version(),
        load=load_average,
        **versions,
    )
    (docs / "takeover.md").write_text(text, encoding="utf-8")
    titles = {rival.name: rival.title for rival in rivals}
    picture.draw(titles, times_of(cuts), docs / "takeover.png")
