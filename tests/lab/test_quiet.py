# SPDX-License-Identifier: Apache-2.0
"""What must not be noticed is not: crashes in place, restarts of ours, and our own weight."""

from __future__ import annotations

import json

from .bus import BusRecord
from .cluster import DETECT, Pair
from .customer import Customer
from .node import Node
from .standing import Standing
from .waiting import until
from .weight import cpu_seconds, resident_bytes

MEMORY = 120 << 20
CPU_SHARE = 0.02
SECONDS = 20.0


def test_installing_the_package_started_nothing(cluster: Standing) -> None:
    """Looked at right after `apt install`, before there was a configuration."""
    for name, said in cluster.after_install.items():
        assert said in ("inactive", "failed"), name


def test_application_that_crashes_is_restarted_in_place(pair: Pair, client: Customer) -> None:
    primary, before = pair.primary, pair.container(pair.primary)
    assert before
    started = before["State"]["StartedAt"]
    primary.exec("docker", "kill", "--signal=KILL", before["Id"])

    def restarted() -> bool:
        now = pair.container(primary)
        return now is not None and now["State"]["StartedAt"] != started

    until(restarted, "the container runs again", within=20, hint=pair.explain)
    client.wait_acks(50)
    assert pair.primary is primary
    assert pair.healthy()


def test_restart_of_the_operator_is_not_noticed(
    pair: Pair, client: Customer, record: BusRecord
) -> None:
    for node in pair.nodes:
        container, states = pair.container(pair.primary), pair.states()
        assert container
        generation = pair.status(pair.primary)["generation"]
        client.wait_acks(50)
        node.exec("systemctl", "restart", "haoperator", timeout=90)
        pair.wait(states, within=20)
        client.wait_acks(50)
        now = pair.container(pair.primary)
        assert now
        assert now["Id"] == container["Id"]
        assert now["State"]["StartedAt"] == container["State"]["StartedAt"]
        assert pair.status(pair.primary)["generation"] == generation
    seen = client.seen()
    gap = seen.longest_gap(seen.acks[0], seen.acks[-1])
    assert gap[1] - gap[0] < 0.5
    assert not seen.drops
    moves = [s.body[:2] for s in record.signals() if s.member == "Transitioned"]
    assert not any("ALONE" in move for move in moves)


def test_restart_of_the_heartbeat_is_no_failure(pair: Pair, client: Customer) -> None:
    states = pair.states()
    for node in pair.nodes:
        node.exec("systemctl", "restart", "ha-heartbeat", timeout=30)
        pair.wait(states, within=20)
        client.wait_acks(100)
    assert pair.states() == states
    assert not client.seen().drops


def test_idle_cluster_is_light(pair: Pair) -> None:
    before = {node.name: cpu_seconds(node) for node in pair.nodes}
    begin = uptime(pair.lab.a)
    until(lambda: uptime(pair.lab.a) - begin >= SECONDS, "a quiet while", within=60, every=1.0)
    measured = uptime(pair.lab.a) - begin
    for node in pair.nodes:
        memory = resident_bytes(node)
        share = (sum(cpu_seconds(node).values()) - sum(before[node.name].values())) / measured
        total = sum(memory.values())
        print(f"{node.name}: {total / 2**20:.1f} MiB, {share:.2%} of one core")
        print(json.dumps({unit: f"{n / 2**20:.1f} MiB" for unit, n in memory.items()}, indent=1))
        assert total < MEMORY
        assert share < CPU_SHARE


def uptime(node: Node) -> float:
    return float(node.exec("cat", "/proc/uptime").stdout.split()[0])


def test_killed_replicator_is_a_pause_and_no_error(
    pair: Pair, client: Customer, record: BusRecord
) -> None:
    """Its descriptors stay with systemd; the next process goes on with the same mount."""
    primary = pair.primary
    container = pair.container(primary)
    assert container
    for _ in range(3):
        client.wait_acks(50)
        primary.exec("systemctl", "kill", "--kill-who=main", "--signal=KILL", "ha-replicator")
        client.wait_acks(50)
        pair.wait_healthy(within=30)
    now = pair.container(primary)
    assert now
    assert now["State"]["StartedAt"] == container["State"]["StartedAt"]
    seen = client.seen()
    # The client gives up after half a second; no answer of the application was an error.
    assert all("timed out" in why for _, why in seen.drops), seen.drops
    gap = seen.longest_gap(seen.acks[0], seen.acks[-1])
    print(f"longest pause {gap[1] - gap[0]:.3f} s")
    assert gap[1] - gap[0] < DETECT
    assert pair.primary is primary
