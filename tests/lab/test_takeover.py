# SPDX-License-Identifier: Apache-2.0
"""The primary loses its power: the standby takes over, and nothing acknowledged is lost."""

from __future__ import annotations

from pathlib import Path
from statistics import median

import pytest

from . import trees
from .bus import BusRecord
from .cluster import DATA, DETECT, Pair
from .customer import Customer
from .takeover import Takeover, bring_back, cut_the_primary
from .writers import watching

ROUNDS = 3


@pytest.fixture(scope="module")
def takeovers() -> list[Takeover]:
    """Those that this module has made so far."""
    return []


@pytest.mark.parametrize("number", range(ROUNDS))
def test_power_cut_loses_no_acknowledged_write(
    pair: Pair, client: Customer, record: BusRecord, takeovers: list[Takeover], number: int
) -> None:
    takeover = cut_the_primary(pair, client, record)
    takeovers.append(takeover)
    print(takeover)
    assert takeover.lost == 0
    client.wait_acks(50)
    bring_back(pair, pair.lab.nodes[takeover.died], record)


def test_takeovers_are_as_fast_as_promised(takeovers: list[Takeover]) -> None:
    """The middle one: a single one may have met something else on a busy machine."""
    assert len(takeovers) == ROUNDS
    assert median(t.detection for t in takeovers) <= DETECT + 0.3
    assert median(t.takeover for t in takeovers) <= 0.5


def test_dead_node_comes_back_as_standby_with_equal_data(
    pair: Pair, client: Customer, record: BusRecord, directory: Path
) -> None:
    """Failback: what changed meanwhile is copied under the client, and no more than that."""
    trees.fill(pair.primary, DATA, 24)
    with watching(pair.lab, directory) as writers:
        takeover = cut_the_primary(pair, client, record)
        died, survivor = pair.lab.nodes[takeover.died], pair.lab.nodes[takeover.survivor]
        trees.change(survivor, DATA)
        client.wait_acks(100)
        bring_back(pair, died, record)
        told = pair.replication(survivor)
        client.wait_acks(50)
        writers.check(changes=1)
    client.pause()
    assert trees.tree_of(died, DATA).differences(trees.tree_of(survivor, DATA)) == []
    assert told["out_of_sync_bytes"] == 0
    assert 0 < told["resync_copied_bytes"] < 12 << 20, "far more was copied than had changed"


def test_standby_that_dies_does_not_disturb_the_application(
    pair: Pair, client: Customer, record: BusRecord
) -> None:
    standby, primary = pair.standby, pair.primary
    container = pair.container(primary)
    standby.power_cut()
    pair.wait({primary.name: "ALONE"}, within=10)
    client.wait_acks(100)
    bring_back(pair, standby, record)
    assert pair.container(primary) == container
    seen = client.seen()
    gap = seen.longest_gap(seen.acks[0], seen.acks[-1])
    assert gap[1] - gap[0] < DETECT + 1.0
    assert not seen.drops or all("timed out" in why for _, why in seen.drops)


def test_both_nodes_boot_after_both_lost_power(pair: Pair, client: Customer) -> None:
    """Nobody has to be asked: the last primary knows that it is the one."""
    client.wait_acks(100)
    pair.lab.on_both(lambda node: node.power_cut())
    pair.lab.on_both(lambda node: node.boot())
    pair.wait_healthy(within=60)
    client.wait_acks(50)
