# SPDX-License-Identifier: Apache-2.0
"""Power cuts in a row: `make soak-power N=200`. Ends at the first broken promise."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .command import LabError
from .customer import customer
from .lab import Lab
from .place import BUILD
from .power import Cuts
from .power_plan import Kind, Outcome, Plan
from .standing import Standing

COLOURS = dict(zip(Kind, ("#3b6fb6", "#57b26a", "#d64545", "#8456b3", "#f29d38"), strict=True))


def soak_power(rounds: int, seed: str, first: int, directory: Path = BUILD / "soak-power") -> int:
    """Makes the cuts number `first` and so on, and prints each; returns the exit status."""
    lab = Lab()
    pair = Standing(lab)
    done: list[Outcome] = []
    begin = time.monotonic()
    number = first
    print(f"seed {seed}", flush=True)
    try:
        pair.new(owned=True)
        with customer(lab, directory / "client.log") as client:
            client.wait_acks(50)
            cuts = Cuts(pair, client, directory)
            try:
                for number in range(first, first + rounds):
                    done.append(cuts.cut(Plan.of(seed, number)))
                    print(f"{number - first + 1:3} of {rounds}  {done[-1]}", flush=True)
            finally:
                cuts.close()
    except LabError as err:
        pair.save_evidence(directory)
        print(
            f"failed after {len(done)} cuts, in this one: {Plan.of(seed, number)}\n{err}\n"
            f"evidence: {directory}\n"
            f"again: python3 -m tests.lab power 1 --seed '{seed}' --first {number}",
            flush=True,
        )
        return 1
    finally:
        summarise(done, time.monotonic() - begin, directory)
        lab.down()
    return 0


def summarise(done: list[Outcome], seconds: float, directory: Path) -> None:
    """Prints what came of each kind, writes all of it down, and draws it."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "cuts.json").write_text(json.dumps([asdict(o) for o in done], indent=1))
    if not done:
        return
    for kind in Kind:
        if times := [o.seconds for o in done if o.plan.kind is kind]:
            print(
                f"{kind:28} {len(times):3} cuts, PRIM/SECOND after "
                f"median {statistics.median(times):.1f} s, worst {max(times):.1f} s"
            )
    made = sum(o.promises for o in done)
    print(f"{len(done)} power cuts passed in {seconds:.0f} s; {made} promises of fsync, all kept")
    draw(done, directory / "cuts.png")
    print(f"picture: {directory / 'cuts.png'}")


def draw(done: list[Outcome], path: Path) -> None:
    """A point for each cut: how soon the pair was whole again."""
    import matplotlib  # type: ignore[import-untyped]

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt  # type: ignore[import-untyped]

    figure, axes = plt.subplots(figsize=(11, 4), dpi=120)
    drawn: Any = axes
    for kind in Kind:
        points = [(o.plan.number, o.seconds) for o in done if o.plan.kind is kind]
        if points:
            drawn.scatter(*zip(*points, strict=True), s=22, color=COLOURS[kind], label=str(kind))
    drawn.set_xlabel("power cut")
    drawn.set_ylabel("seconds from the last power-up\nto PRIM and SECOND")
    drawn.set_ylim(bottom=0)
    drawn.grid(axis="y", color="#e3e7ea", linewidth=0.7)
    drawn.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, title="whose power")
    made = sum(o.promises for o in done)
    drawn.set_title(f"{len(done)} power cuts passed, {made:,} promises of fsync", loc="left")
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
