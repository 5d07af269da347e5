# SPDX-License-Identifier: Apache-2.0
"""Checkers under systemd: what follows when what they look at fails, hangs, flaps, recovers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from .cluster import Pair
from .node import Node
from .reconfigured import active, configured, running, swap, wait_said
from .standing import Standing
from .waiting import until

PROBED = "[Service]\nExecStart=/bin/sleep 1000003\n"
KEEPER = "ha-app@keeper.service"
FAST = 'interval = "200ms"\ntimeout = "200ms"\nfailures = 2\n'
MORE = f"""
[app.keeper]
exec = "/bin/sleep 1000002"
max_restarts = 100
[checker.unit]
app = "keeper"
unit = "probed.service"
successes = 3
on_failure = "restart"
{FAST}
[checker.container]
app = "redis"
container = "ha-redis"
on_failure = "notify"
[checker.stopper]
app = "keeper"
exec = "/usr/bin/test -e /run/keep"
on_failure = "stop"
{FAST}
[checker.mover]
exec = "/usr/bin/test ! -e /run/move"
on_failure = "failover"
{FAST}
[checker.room]
disk = "/run/room"
free = "10%"
on_failure = "notify"
{FAST}
[checker.cable]
link = "eth0"
on_failure = "notify"
{FAST}
[checker.dockerd]
docker = true
on_failure = "notify"
{FAST}
"""
FILL = "head -c 2000000 /dev/zero >/run/room/full || true"


def prepare(node: Node) -> None:
    node.put("/etc/systemd/system/probed.service", PROBED)
    ready_again(node)


def ready_again(node: Node) -> None:
    """After a boot too: /run is empty then."""
    room = "mountpoint -q /run/room || mount --mkdir -t tmpfs -o size=1m tmpfs /run/room"
    node.exec("sh", "-c", f"{room}; touch /run/keep; rm -f /run/move /run/room/full")
    node.exec("systemctl", "start", "docker.service", "probed.service")


def tidy(node: Node) -> None:
    node.exec("systemctl", "stop", "probed.service")
    node.exec("sh", "-c", "umount /run/room; rm -f /etc/systemd/system/probed.service /run/keep")


@pytest.fixture(scope="module")
def watched_cluster(cluster: Standing) -> Iterator[None]:
    """With checkers of every sort, once for all scenarios of this file."""
    if not cluster.in_order():
        cluster.new(owned=True)
    with configured(cluster, MORE, prepare, tidy):
        yield
        cluster.in_order()


@pytest.fixture
def watched(pair: Pair, watched_cluster: None) -> Iterator[Pair]:
    """All is well, before a scenario and after it."""
    for node in pair.nodes:
        ready_again(node)
    well(pair)
    yield pair
    with contextlib.suppress(AssertionError):
        pair.lab.network.heal()


def checker(name: str) -> str:
    return f"ha-checker@{name}.service"


def main_pid(node: Node, unit: str) -> int:
    return int(node.exec("systemctl", "show", "-P", "MainPID", unit).stdout)


def well(pair: Pair) -> None:
    primary, both = ("unit", "container", "stopper", "mover"), ("room", "cable", "dockerd")
    for node, names in ((pair.primary, (*primary, *both)), (pair.standby, both)):
        until(
            lambda node=node, names=names: active(node, *map(checker, names)),  # type: ignore[misc]
            f"all checkers of {node.name} are well",
            within=60,
            hint=pair.explain,
        )
    ready(pair, True)


def ready(pair: Pair, wanted: bool) -> None:
    """What both nodes say of the standby."""

    def told() -> bool:
        of_itself = pair.status(pair.standby)["ready"]
        return (of_itself, pair.status(pair.primary)["peer"]["ready"]) == (wanted, wanted)

    until(told, f"both say that the standby is ready: {wanted}", within=20, hint=pair.explain)


def restarted(pair: Pair, former: int) -> int:
    until(
        lambda: main_pid(pair.primary, KEEPER) not in (0, former),
        "the application was restarted",
        within=20,
        hint=pair.explain,
    )
    return main_pid(pair.primary, KEEPER)


def test_unit_that_fails_restarts_the_application_until_it_is_well(watched: Pair) -> None:
    primary = watched.primary
    former = main_pid(primary, KEEPER)
    primary.exec("systemctl", "stop", "probed.service")
    former = restarted(watched, former)
    assert not active(primary, checker("unit"))
    restarted(watched, former)  # again, because it goes on failing
    primary.exec("systemctl", "start", "probed.service")
    well(watched)
    status = primary.exec("systemctl", "show", "-P", "StatusText", checker("unit")).stdout
    assert status == "probed.service is active\n"


def test_checker_that_hangs_is_ended_by_its_watchdog_and_counts_as_failed(watched: Pair) -> None:
    primary = watched.primary
    former = main_pid(primary, KEEPER)
    primary.exec("kill", "-STOP", str(main_pid(primary, checker("unit"))))
    restarted(watched, former)
    wait_said(primary, "haoperator", "ha-checker@unit.service failed (watchdog): restart")
    well(watched)


def test_unit_that_flaps_restarts_the_application(watched: Pair) -> None:
    primary = watched.primary
    former = main_pid(primary, KEEPER)
    flapping = (
        "while :; do systemctl stop probed; sleep 0.3; systemctl start probed; sleep 0.4; done"
    )
    primary.exec("systemd-run", "--unit=flapping", "sh", "-c", flapping)
    try:
        restarted(watched, former)
    finally:
        primary.exec("systemctl", "stop", "flapping.service")
        primary.exec("systemctl", "start", "probed.service")
    well(watched)


def test_stop_stops_the_application_and_leaves_the_role(watched: Pair) -> None:
    primary = watched.primary
    primary.exec("rm", "/run/keep")
    until(
        lambda: not active(primary, KEEPER),
        "the application is stopped",
        within=20,
        hint=watched.explain,
    )
    assert watched.states() == {primary.name: "PRIM", watched.standby.name: "SECOND"}
    assert running(primary, "ha-redis")
    primary.exec("touch", "/run/keep")
    primary.exec("systemctl", "start", KEEPER)
    well(watched)


def test_container_that_dies_and_dockerd_that_hangs_are_told_apart(watched: Pair) -> None:
    primary = watched.primary
    dockerd = primary.exec("pidof", "dockerd").stdout.strip()
    primary.exec("kill", "-STOP", dockerd)
    try:
        until(lambda: not active(primary, checker("dockerd")), "dockerd hangs", within=20)
        status = ("systemctl", "show", "-P", "StatusText", checker("container"))
        until(lambda: "lives, but" in primary.exec(*status).stdout, "it lives", within=20)
        assert active(primary, checker("container"))
    finally:
        primary.exec("kill", "-CONT", dockerd)
    well(watched)


@pytest.mark.parametrize("lack", ["room", "dockerd", "cable"])
def test_standby_that_lacks_something_is_not_ready_until_it_has_it(
    watched: Pair, lack: str
) -> None:
    standby = watched.standby
    match lack:
        case "room":
            standby.exec("sh", "-c", FILL)
        case "dockerd":
            standby.exec("systemctl", "stop", "docker.socket", "docker.service")
        case _:
            watched.lab.network.cut(standby.name, "lan")
    ready(watched, False)
    assert f"checker {lack} failed" in standby.exec("hactl", "status").stdout
    assert "(not ready to take over)" in watched.primary.exec("hactl", "status").stdout
    assert "no place to hand over to" in standby.exec("hactl", "why").stdout
    assert watched.healthy(), "it stays SECOND: its data is complete"
    watched.lab.network.heal()
    ready_again(standby)
    well(watched)


def test_nothing_is_moved_to_a_standby_that_is_not_ready_before_it_is(watched: Pair) -> None:
    primary, standby = watched.primary, watched.standby
    standby.exec("sh", "-c", FILL)
    ready(watched, False)
    primary.exec("touch", "/run/move")
    until(
        lambda: "cannot take over" in watched.status(primary)["reason"],
        "the primary says that it stays",
        within=20,
        hint=watched.explain,
    )
    assert watched.healthy()
    standby.exec("rm", "/run/room/full")
    watched.wait({standby.name: "PRIM", primary.name: "SECOND"}, within=60)
    # Where something gave up is no place to move to, before it was primary again.
    ready(watched, False)
    primary.exec("rm", "/run/move")
    swap(watched)
    well(watched)


def test_standby_that_is_not_ready_takes_over_from_a_dead_primary(watched: Pair) -> None:
    primary, standby = watched.primary, watched.standby
    standby.exec("sh", "-c", FILL)
    ready(watched, False)
    primary.power_cut()
    watched.wait({standby.name: "ALONE"}, within=60)
    primary.boot()
    watched.wait({standby.name: "PRIM", primary.name: "SECOND"}, within=90)
    for node in watched.nodes:
        ready_again(node)
    well(watched)


def test_swap_is_not_held_up_by_a_checker_that_is_not_well(watched: Pair) -> None:
    standby = watched.standby
    standby.exec("systemctl", "stop", "probed.service")
    new, _ = swap(watched)
    assert new is standby
    assert not active(new, checker("unit"))
    new.exec("systemctl", "start", "probed.service")
    well(watched)
