# SPDX-License-Identifier: Apache-2.0
"""dockerd is stopped, killed and restarted under an application: no failure, and no failover."""

from __future__ import annotations

import pytest

from .cluster import Pair
from .node import Node
from .reconfigured import running, wait_said
from .waiting import until

UNIT = "ha-app@redis.service"
NAME = "ha-redis"
WITHOUT_CHECKER = ("systemctl", "stop", "ha-checker@redis.service")


def restarts(node: Node) -> int:
    return int(node.exec("systemctl", "show", "-P", "NRestarts", UNIT).stdout)


def status(node: Node) -> str:
    return node.exec("systemctl", "show", "-P", "StatusText", UNIT).stdout.strip()


@pytest.fixture(autouse=True)
def patient(pair: Pair) -> None:
    """The application runs, and dockerd may be started often."""
    for node in pair.nodes:
        node.exec("systemctl", "reset-failed", "docker.service", "docker.socket", check=False)
    node = pair.primary
    until(lambda: status(node) == f"container {NAME} runs", "it runs", within=60, hint=pair.explain)


@pytest.mark.parametrize("way", ["restart", "kill"])
def test_dockerd_that_comes_back_gets_the_application_back(pair: Pair, way: str) -> None:
    primary = pair.primary
    primary.exec(*WITHOUT_CHECKER)
    before = restarts(primary)
    if way == "restart":
        primary.exec("systemctl", "restart", "docker.service")
    else:
        primary.exec("systemctl", "kill", "--signal=KILL", "docker.service")
    wait_said(primary, UNIT, "dockerd has stopped, and the container with it: waiting for dockerd")
    until(
        lambda: running(primary, NAME) and status(primary) == f"container {NAME} runs",
        "it runs again",
        within=30,
        hint=lambda: status(primary),
    )
    assert restarts(primary) == before
    assert pair.healthy()
    primary.exec("systemctl", "start", "ha-checker@redis.service")


def test_dockerd_that_is_stopped_is_waited_for_then_started(pair: Pair) -> None:
    """The wait in vain counts as one failure, and the restart brings dockerd along."""
    primary = pair.primary
    primary.exec(*WITHOUT_CHECKER)
    before = restarts(primary)
    primary.exec("systemctl", "stop", "docker.service")
    until(lambda: status(primary) == "waiting for dockerd", "it says what it waits for", within=10)
    active = primary.exec("systemctl", "is-active", "docker.service", check=False)
    assert active.stdout.strip() == "inactive"
    # No word with docker before that: asking would wake it too.
    until(
        lambda: restarts(primary) == before + 1,
        "the wait in vain counts",
        within=60,
        hint=lambda: f"{status(primary)}\n{pair.explain()}",
    )
    until(lambda: running(primary, NAME), "it runs again", within=60, hint=pair.explain)
    assert restarts(primary) == before + 1
    assert pair.primary is primary
    primary.exec("systemctl", "start", "ha-checker@redis.service")


def test_container_that_lives_on_without_dockerd_is_kept(pair: Pair) -> None:
    """With live-restore."""
    primary = pair.primary
    primary.put("/etc/docker/daemon.json", '{"live-restore": true}\n')
    try:
        primary.exec("systemctl", "reload", "docker.service")
        container = pair.container(primary)
        assert container
        primary.exec("systemctl", "stop", "docker.service")
        until(lambda: "dockerd does not run" in status(primary), "it knows", within=10)
        process = container["State"]["Pid"]
        primary.exec("test", "-d", f"/proc/{process}")
        primary.exec("systemctl", "start", "docker.service")
        until(lambda: status(primary) == f"container {NAME} runs", "it has it back", within=20)
        now = pair.container(primary)
        assert now
        assert now["State"]["Pid"] == process
    finally:
        primary.exec("rm", "/etc/docker/daemon.json")
        primary.exec("systemctl", "reload", "docker.service")
