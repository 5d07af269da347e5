# SPDX-License-Identifier: Apache-2.0
"""A container of the cluster does not run on a standby, whoever starts it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .cluster import Pair
from .node import Node
from .reconfigured import inspected, running, said, swap, wait_said
from .waiting import until

NAME = "ha-redis"
STOPPED = f"container {NAME} was started here, and this node is not the primary: stopping it"


@pytest.fixture
def standby(pair: Pair) -> Iterator[Node]:
    """With a container of the application's name, and a dockerd that may be started often."""
    node = pair.standby
    node.exec("systemctl", "reset-failed", "docker.service", "docker.socket", check=False)
    if inspected(node, NAME) is None:
        ours = "--label=org.haoperator1.app=redis"
        node.exec("docker", "create", "--name", NAME, ours, "redis-demo:1", "redis-server")
    yield node
    node.exec("docker", "rm", "--force", NAME, check=False)


def policy(node: Node) -> str:
    found = inspected(node, NAME)
    assert found
    return str(found["HostConfig"]["RestartPolicy"]["Name"])


def stopped(node: Node, times: int) -> None:
    until(
        lambda: said(node, "ha-guard.service").count(STOPPED) >= times and not running(node, NAME),
        f"it was stopped {times} times",
        within=15,
        hint=lambda: said(node, "ha-guard.service"),
    )


def test_container_that_somebody_starts_on_the_standby_is_stopped(
    pair: Pair, standby: Node
) -> None:
    before = said(standby, "ha-guard.service").count(STOPPED)
    standby.exec("docker", "start", NAME)
    stopped(standby, before + 1)
    standby.exec("docker", "start", NAME)
    stopped(standby, before + 2)
    assert pair.healthy()


def test_restart_policy_is_taken_away_before_dockerd_acts_on_it(standby: Node) -> None:
    standby.exec("docker", "update", "--restart=always", NAME)
    until(lambda: policy(standby) == "no", "its policy is corrected", within=10)
    wait_said(standby, "ha-guard.service", "restart policy changed from always to no")


def test_dockerd_that_comes_back_with_it_is_looked_through(standby: Node) -> None:
    """The policy is given while the guard is away, so that dockerd starts it by itself."""
    before = said(standby, "ha-guard.service").count(STOPPED)
    standby.exec("systemctl", "stop", "ha-guard.service")
    standby.exec("docker", "update", "--restart=always", NAME)
    standby.exec("docker", "start", NAME)
    standby.exec("systemctl", "start", "ha-guard.service")
    stopped(standby, before + 1)
    assert policy(standby) == "no"
    for _ in range(2):
        standby.exec("systemctl", "restart", "docker.service")
        assert not running(standby, NAME)
        standby.exec("docker", "start", NAME)
        before += 1
        stopped(standby, before + 1)


def test_guard_wakes_no_dockerd(standby: Node) -> None:
    standby.exec("systemctl", "stop", "docker.service")
    until(
        lambda: "dockerd does not run" in status(standby),
        "the guard knows",
        within=10,
        hint=lambda: status(standby),
    )
    # It looks for a dockerd once a second.
    looks = cpu(standby)
    until(lambda: cpu(standby) > looks, "it looks for dockerd", within=10)
    active = standby.exec("systemctl", "is-active", "docker.service", check=False)
    assert active.stdout.strip() == "inactive"
    standby.exec("systemctl", "start", "docker.service")
    until(lambda: "dockerd" not in status(standby), "the guard has found it", within=10)


def status(node: Node) -> str:
    return node.exec("systemctl", "show", "-P", "StatusText", "ha-guard.service").stdout


def cpu(node: Node) -> int:
    return int(node.exec("systemctl", "show", "-P", "CPUUsageNSec", "ha-guard.service").stdout)


def test_guard_follows_the_role(pair: Pair, standby: Node) -> None:
    new, old = swap(pair)
    assert new is standby
    until(lambda: running(new, NAME), "it runs on the new primary", within=20, hint=pair.explain)
    before = said(old, "ha-guard.service").count(STOPPED)
    assert not running(old, NAME)
    old.exec("docker", "start", NAME)
    stopped(old, before + 1)
    assert running(new, NAME)
    assert pair.healthy()
