# SPDX-License-Identifier: Apache-2.0
"""What must not happen does not: stale data, two writers, half a configuration."""

from __future__ import annotations

from pathlib import Path

from .bus import BusRecord
from .cluster import CONFIG, DATA, DURABILITY, Pair
from .customer import Customer
from .takeover import bring_back, cut_the_primary
from .waiting import until
from .writers import watching


def test_isolating_the_primary_target_on_a_stale_node_is_refused_with_the_reason(
    pair: Pair, client: Customer, record: BusRecord
) -> None:
    """The node missed writes that its peer acknowledged alone, and the peer is gone now."""
    takeover = cut_the_primary(pair, client, record)
    stale, current = pair.lab.nodes[takeover.died], pair.lab.nodes[takeover.survivor]
    client.wait_acks(100)
    current.power_cut()
    stale.boot()
    pair.wait({stale.name: "WAIT"}, within=20)

    refused = stale.exec("systemctl", "isolate", "ha-primary.target", check=False, timeout=90)
    assert refused.returncode != 0
    said = stale.journal("-b", "-o", "cat", "-u", "ha-promote.service", "-u", "haoperator")
    assert "ha-promote" in said or "refus" in said
    why = stale.exec("hactl", "why").stdout
    assert current.name in why or "up to date" in why or "stale" in why
    assert pair.state(stale) == "WAIT"
    assert not pair.has_vip(stale)
    assert not pair.container(stale)
    active = ("systemctl", "is-active", "ha-secondary.target", "ha-cluster.target")
    until(
        lambda: stale.exec(*active, check=False).stdout.split() == ["active", "active"],
        "the node is standby again",
        within=20,
    )
    asked = stale.exec("hactl", "promote", check=False, timeout=90)
    assert asked.returncode != 0, "hactl promote without --force took stale data"

    current.boot()
    pair.wait({current.name: "PRIM", stale.name: "SECOND"}, within=60)
    client.wait_acks(50)


def test_isolated_primary_stops_writing_before_the_standby_takes_over(
    pair: Pair, client: Customer, directory: Path
) -> None:
    """All its cables are cut at once. It reaches nobody, and knows that it is the isolated one."""
    isolated, other = pair.primary, pair.standby
    with watching(pair.lab, directory) as writers:
        client.wait_acks(50)
        until(lambda: writers.last_write(isolated), "a write on the primary", within=10)
        pair.lab.network.cut(isolated.name)
        pair.wait({other.name: "ALONE", isolated.name: "WAIT"}, within=20)
        until(lambda: not pair.has_vip(isolated), "the isolated node has no VIP", within=10)
        client.wait_acks(50)
        assert writers.last_write(isolated) < writers.first_write(other)
        pair.lab.network.heal()
        pair.wait({other.name: "PRIM", isolated.name: "SECOND"}, within=60)
        client.wait_acks(50)
        writers.check(changes=1)


def test_one_cable_less_changes_no_role(pair: Pair, client: Customer, record: BusRecord) -> None:
    """Replication and heartbeats go on over the link that is left."""
    primary, standby = pair.primary, pair.standby
    pair.lab.network.cut(standby.name, "direct")
    until(
        lambda: pair.links(primary) == {"lan": True, "direct": False},
        "the link is noticed to be down",
        within=10,
    )
    client.wait_acks(50)
    assert pair.primary is primary
    pair.lab.network.heal()
    pair.wait({primary.name: "PRIM", standby.name: "SECOND"}, within=60)
    client.wait_acks(50)


def test_rubbish_in_the_configuration_is_refused_with_file_and_line(pair: Pair) -> None:
    node = pair.standby
    lines = CONFIG.splitlines()
    at = lines.index(f'durability = "{DURABILITY}"')
    lines[at] = lines[at].replace("durability", "durablity")
    node.put("/tmp/wrong.toml", "\n".join(lines))
    refused = node.exec("hactl", "check-config", "/tmp/wrong.toml", check=False)
    assert refused.returncode != 0
    told = refused.stdout + refused.stderr
    assert f"/tmp/wrong.toml:{at + 1}" in told
    assert "durability" in told, "the nearest known key is not named"
    node.put("/tmp/rubbish.toml", "[cluster\n")
    refused = node.exec("hactl", "check-config", "/tmp/rubbish.toml", check=False)
    assert refused.returncode != 0
    assert "/tmp/rubbish.toml:1" in refused.stdout + refused.stderr
    assert pair.healthy()


def test_a_service_that_writes_too_early_meets_a_read_only_directory(pair: Pair) -> None:
    """A container started by hand on the wrong node cannot write beside the replication."""
    volume = ("-v", f"{DATA}:/data")
    command = ("docker", "run", "--rm", *volume, "web:1", "touch", "/data/stray")
    refused = pair.standby.exec(*command, check=False)
    assert refused.returncode != 0
    assert "Read-only" in refused.stderr


def test_a_dead_node_is_brought_back_whichever_it_was(
    pair: Pair, client: Customer, record: BusRecord, directory: Path
) -> None:
    """Two takeovers in opposite directions, and never two writers in them."""
    with watching(pair.lab, directory) as writers:
        for _ in range(2):
            takeover = cut_the_primary(pair, client, record)
            died = pair.lab.nodes[takeover.died]
            client.wait_acks(50)
            bring_back(pair, died, record)
            writers.watch(died)
            client.wait_acks(50)
        writers.check(changes=2)
