# SPDX-License-Identifier: Apache-2.0
"""What can be done to a node, and how it is undone. Each fault acts on a stage."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from . import disk
from .cluster import CONFIG
from .paths import Cut
from .stage import Side, Stage

Fault = Callable[[Stage], None]

DAEMONS = ("haoperator", "ha-heartbeat", "ha-replicator")
NOTHING: Fault = lambda stage: None  # noqa: E731


def all_of(*faults: Fault) -> Fault:
    """One after the other."""

    def fault(stage: Stage) -> None:
        for each in faults:
            each(stage)

    return fault


def cut(side: Side, *cuts: Cut) -> Fault:
    def fault(stage: Stage) -> None:
        for each in cuts:
            each.make(stage.pair.lab.network, stage.node(side))

    return fault


def power_cut(*sides: Side) -> Fault:
    def fault(stage: Stage) -> None:
        nodes = [stage.node(side) for side in sides]
        stage.pair.lab.on_both(lambda node: node.power_cut() if node in nodes else None)

    return fault


def boot(*sides: Side) -> Fault:
    return lambda stage: stage.boot(*(stage.node(side) for side in sides))


def shut_down(*sides: Side) -> Fault:
    def fault(stage: Stage) -> None:
        nodes = [stage.node(side) for side in sides]
        stage.pair.lab.on_both(lambda node: node.shutdown() if node in nodes else None)

    return fault


def reboot(*sides: Side) -> Fault:
    def fault(stage: Stage) -> None:
        shut_down(*sides)(stage)
        boot(*sides)(stage)

    return fault


def run(side: Side, *command: str, undo: tuple[str, ...] = ()) -> Fault:
    """A command on a node; `undo` is another one that is run there when all is mended."""

    def fault(stage: Stage) -> None:
        node = stage.node(side)
        if undo:
            stage.undo.append(partial(node.exec, *undo, timeout=90, check=False))
        node.exec(*command, timeout=90)

    return fault


def signal(name: str, side: Side, *units: str) -> Fault:
    """A signal to the main process of each unit. Who was stopped goes on when all is mended."""
    send = ("systemctl", "kill", "--kill-who=main")
    stopped = (*send, "--signal=CONT", *units) if name == "STOP" else ()
    return run(side, *send, f"--signal={name}", *units, undo=stopped)


def kill_disk(side: Side) -> Fault:
    """Every access to the node's data disk fails with EIO from now on. It is replaced, with
    all that had reached it, while the node has no power."""

    def fault(stage: Stage) -> None:
        node = stage.node(side)
        stage.undo.append(node.power_cut)
        disk.kill(node.root / "srv")

    return fault


def fail_application(*sides: Side) -> Fault:
    """From now on Redis is killed on these nodes as soon as it runs."""
    unit = "fail-redis.service"
    kill = "docker ps -q -f ancestor=redis-demo:1 | xargs -r docker kill -s KILL"
    loop = f"while sleep 0.2; do {kill}; done"
    start = ("systemd-run", "--collect", f"--unit={unit}", "sh", "-c", loop)

    def fault(stage: Stage) -> None:
        for side in sides:
            run(side, *start, undo=("systemctl", "stop", unit))(stage)

    return fault


def forgive(stage: Stage) -> None:
    """Both operators forget where an application gave up: for a day that is no place to go to."""
    for node in stage.pair.nodes:
        node.exec("systemctl", "restart", "haoperator", timeout=90)
    stage.pair.wait_healthy()


def forget(stage: Stage) -> None:
    """Both nodes leave and lose all that haoperator ever wrote down: a first start."""
    for node in (stage.standby, stage.primary):
        node.exec("systemctl", "stop", "ha-cluster.target", timeout=90)
    for node in stage.pair.nodes:
        node.exec("sh", "-c", "rm -rf /var/lib/haoperator/*")
    for node in stage.pair.nodes:
        node.exec("hactl", "start")


def reconfigure(text: str) -> Fault:
    """Another configuration on both nodes."""
    return lambda stage: stage.pair.reconfigure(text)


def prefer_the_primary(stage: Stage) -> None:
    stage.pair.reconfigure(with_cluster(f'preferred = "{stage.primary.name}"'))


def with_cluster(line: str) -> str:
    """The lab's configuration with one more line in `[cluster]`."""
    return CONFIG.replace("[cluster]\n", f"[cluster]\n{line}\n")


CLOCK = "/run/lab-clock"
CLOCKED = ("haoperator", "ha-heartbeat")
"""Not the replicator: the library breaks the sleep of its threads (EINVAL)."""
LIBRARY = "/usr/lib/$(uname -m)-linux-gnu/faketime/libfaketimeMT.so.1"
OWN_CLOCK = f"""
set -e
echo +0 >{CLOCK}
for unit in {" ".join(CLOCKED)}; do
    mkdir -p /run/systemd/system/$unit.service.d
    cat >/run/systemd/system/$unit.service.d/clock.conf <<END
[Service]
Environment=LD_PRELOAD={LIBRARY} FAKETIME_TIMESTAMP_FILE={CLOCK}
Environment=FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1
END
done
systemctl daemon-reload
systemctl restart {" ".join(CLOCKED)}
"""
MACHINES_CLOCK = f"""
rm /run/systemd/system/*.d/clock.conf
systemctl daemon-reload
systemctl restart {" ".join(CLOCKED)}
"""


def give_own_clocks(stage: Stage) -> None:
    """Those who decide get a real-time clock that can be set: the machine has one only, which
    belongs to others too."""
    for node in stage.pair.nodes:
        node.install("libfaketime")
        node.exec("sh", "-c", OWN_CLOCK, timeout=90)
        stage.pair.wait_healthy()


def take_own_clocks(stage: Stage) -> None:
    for node in stage.pair.nodes:
        node.exec("sh", "-c", MACHINES_CLOCK, timeout=90)
        stage.pair.wait_healthy()


def set_clock(side: Side, offset: str) -> Fault:
    """CLOCK_REALTIME of our daemons on a node jumps, by `+5h` or the like."""
    return lambda stage: stage.node(side).put(CLOCK, f"{offset}\n")
