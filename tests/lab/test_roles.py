# SPDX-License-Identifier: Apache-2.0
"""Roles move in order when an administrator asks, in every way that there is to ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from .bus import BusRecord
from .cluster import DATA, DETECT, Pair
from .customer import Customer
from .swap import swap_by, swap_by_hactl, swap_by_isolate
from .writers import watching

INTERRUPTION = 3.0
"""Seconds that a client may wait in a swap; the application has to stop and start in it."""


@pytest.mark.parametrize("on", ["primary", "standby"])
def test_hactl_swap_moves_the_role_and_loses_nothing(
    pair: Pair, client: Customer, record: BusRecord, directory: Path, on: str
) -> None:
    node = pair.primary if on == "primary" else pair.standby
    with watching(pair.lab, directory) as writers:
        swap = swap_by_hactl(pair, node, client, record)
        print(f"interruption {swap.interruption:.3f} s")
        writers.check(changes=1)
    assert swap.lost == 0
    assert swap.interruption < INTERRUPTION


def test_isolating_the_primary_target_on_the_standby_swaps(
    pair: Pair, client: Customer, record: BusRecord, directory: Path
) -> None:
    with watching(pair.lab, directory) as writers:
        swap = swap_by_isolate(pair, pair.standby, client, record)
        print(f"interruption {swap.interruption:.3f} s")
        writers.check(changes=1)
    assert swap.lost == 0
    assert swap.interruption < INTERRUPTION


def test_isolating_the_secondary_target_on_the_primary_hands_over(
    pair: Pair, client: Customer, record: BusRecord
) -> None:
    old = pair.primary
    swap = swap_by(
        lambda: old.exec("systemctl", "isolate", "ha-secondary.target", timeout=90),
        pair,
        pair.standby,
        client,
        record,
    )
    assert swap.lost == 0
    assert swap.interruption < INTERRUPTION


def test_vip_and_application_are_on_the_primary_only(pair: Pair) -> None:
    assert pair.has_vip(pair.primary)
    assert not pair.has_vip(pair.standby)
    assert pair.container(pair.primary)
    assert not pair.container(pair.standby)


def test_standby_shows_the_data_and_refuses_to_change_it(pair: Pair) -> None:
    pair.primary.exec("sh", "-c", f"echo here >{DATA}/note")
    assert pair.standby.exec("cat", f"{DATA}/note").stdout == "here\n"
    for change in (f"echo no >{DATA}/note", f"touch {DATA}/new", f"rm {DATA}/note"):
        refused = pair.standby.exec("sh", "-c", change, check=False)
        assert refused.returncode != 0
        assert "Read-only file system" in refused.stderr
    assert pair.standby.exec("cat", f"{DATA}/note").stdout == "here\n"


def test_exit_code_of_status_tells_the_state(pair: Pair) -> None:
    assert pair.primary.exec("hactl", "status", "-q", check=False).returncode == 3
    assert pair.standby.exec("hactl", "status", "-q", check=False).returncode == 4
    told = pair.status(pair.primary)
    assert (told["state"], told["role"], told["node"]) == ("PRIM", "primary", pair.primary.name)
    peer = {"name": pair.standby.name, "state": "SECOND", "reachable": True, "ready": True}
    assert told["peer"] == peer


def test_primary_that_leaves_in_order_is_followed_without_waiting_for_silence(
    pair: Pair, client: Customer, record: BusRecord
) -> None:
    old, new = pair.primary, pair.standby
    client.wait_acks(50)
    old.exec("hactl", "stop", timeout=90)
    pair.wait({new.name: "ALONE"}, within=20)
    client.wait_acks(50)
    seen = client.seen()
    gap = seen.longest_gap(seen.acks[0], seen.acks[-1])
    assert gap[1] - gap[0] < INTERRUPTION
    assert pair.state(old) in ("STOP", "")
    assert not pair.has_vip(old)
    old.exec("hactl", "start")
    pair.wait({old.name: "SECOND", new.name: "PRIM"}, within=60)


def test_standby_that_leaves_in_order_is_not_waited_for(pair: Pair, client: Customer) -> None:
    primary, standby = pair.primary, pair.standby
    client.wait_acks(50)
    standby.exec("hactl", "stop", timeout=90)
    pair.wait({primary.name: "ALONE"}, within=10)
    client.wait_acks(50)
    standby.exec("hactl", "start")
    pair.wait({primary.name: "PRIM", standby.name: "SECOND"}, within=60)
    seen = client.seen()
    gap = seen.longest_gap(seen.acks[0], seen.acks[-1])
    assert gap[1] - gap[0] < DETECT, "the application waited for a standby that had said goodbye"


def test_primary_that_is_shut_down_hands_over_first(pair: Pair, client: Customer) -> None:
    old, new = pair.primary, pair.standby
    client.wait_acks(50)
    old.shutdown()
    pair.wait({new.name: "ALONE"}, within=20)
    client.wait_acks(50)
    seen = client.seen()
    gap = seen.longest_gap(seen.acks[0], seen.acks[-1])
    assert gap[1] - gap[0] < INTERRUPTION + 1.0
    old.boot()
    pair.wait({old.name: "SECOND", new.name: "PRIM"}, within=60)
