# SPDX-License-Identifier: Apache-2.0
"""Takeovers in a row: `make soak-takeover N=100`. Ends at the first lost write or stuck cluster."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from .bus import recording
from .command import LabError
from .customer import customer
from .lab import Lab
from .place import BUILD
from .standing import Standing
from .takeover import Takeover, bring_back, cut_the_primary


def soak_takeovers(rounds: int, directory: Path = BUILD / "soak-takeover") -> int:
    """Runs `rounds` takeovers and prints each; returns the exit status."""
    lab = Lab()
    pair = Standing(lab)
    done: list[Takeover] = []
    try:
        pair.new(owned=True)
        for number in range(1, rounds + 1):
            with (
                recording(lab, directory) as record,
                customer(lab, directory / "client.log") as client,
            ):
                client.wait_acks(50)
                takeover = cut_the_primary(pair, client, record)
                done.append(takeover)
                print(f"{number:3} of {rounds}  {takeover}", flush=True)
                client.wait_acks(50)
                bring_back(pair, lab.nodes[takeover.died], record)
                if lost := client.pause()["lost"]:
                    raise LabError(f"{lost} acknowledged writes are lost", str(directory))
    except LabError as err:
        pair.save_evidence(directory)
        print(f"failed after {len(done)} takeovers: {err}\nevidence: {directory}", flush=True)
        return 1
    finally:
        summarise(done, directory)
        lab.down()
    return 0


def summarise(done: list[Takeover], directory: Path) -> None:
    """Prints median and worst of what was measured, and writes all of it down."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "takeovers.json").write_text(json.dumps([t.as_dict() for t in done], indent=1))
    if not done:
        return
    for name, values in (
        ("detection", [t.detection for t in done]),
        ("takeover", [t.takeover for t in done]),
        ("outage", [t.outage for t in done]),
    ):
        print(f"{name:10} median {statistics.median(values):.3f} s, worst {max(values):.3f} s")
    print(f"{len(done)} takeovers, {sum(t.lost for t in done)} acknowledged writes lost")
