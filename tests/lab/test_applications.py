# SPDX-License-Identifier: Apache-2.0
"""Real applications go through a takeover under load: each checks itself, and nothing that it
acknowledged is missing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from . import trees
from .applications import is_set_up, set_up, under_load
from .cluster import CONFIG, DATA, Pair
from .standing import Standing
from .waiting import until

NAMES = ("postgresql", "sqlite", "redis", "git", "untar")
PATIENCE = 180.0


@pytest.fixture(scope="module")
def tidied(cluster: Standing) -> Iterator[None]:
    """The other scenarios find the cluster as they know it."""
    yield
    if cluster.in_order() and is_set_up(cluster):
        cluster.reconfigure(CONFIG)
        cluster.primary.exec("sh", "-c", f"cd {DATA} && rm -rf postgres sqlite git untar")


@pytest.fixture
def serving(pair: Pair, tidied: None) -> Pair:
    """The pair, with the applications in its configuration."""
    if not is_set_up(pair):
        set_up(pair)
    return pair


@pytest.mark.parametrize("way", ["power cut", "swap"])
@pytest.mark.parametrize("name", NAMES)
def test_application_keeps_all_that_it_acknowledged(
    serving: Pair, directory: Path, name: str, way: str
) -> None:
    old, new = serving.primary, serving.standby
    with under_load(name, serving, directory) as application:
        application.wait()
        if way == "power cut":
            old.power_cut()
            serving.wait({new.name: "ALONE"}, PATIENCE)
        else:
            new.exec("hactl", "swap", timeout=PATIENCE)
            serving.wait({new.name: "PRIM", old.name: "SECOND"}, PATIENCE)
        print(application.check(new))
        if way == "power cut":
            old.boot()
            serving.wait({new.name: "PRIM", old.name: "SECOND"}, PATIENCE)
        until(
            lambda: differences(serving) == [],
            "equal trees",
            within=PATIENCE,
            every=1.0,
            hint=lambda: "\n".join(differences(serving)[:20]),
        )


def differences(pair: Pair) -> list[str]:
    """Between the nodes' trees. The applications run, so one look may find one on the way."""
    pair.primary.exec("sync", "-f", DATA, timeout=PATIENCE)
    one, two = (trees.tree_of(node, DATA) for node in pair.nodes)
    return one.differences(two)
