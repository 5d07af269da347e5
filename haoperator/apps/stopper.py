# SPDX-License-Identifier: Apache-2.0
"""`ha-app --stop NAME`, for `ExecStopPost=`: whatever ended the unit, nothing of it runs on."""

from __future__ import annotations

import contextlib
import select
import signal
import threading

from haoperator.apps import docker_socket
from haoperator.apps.held import TRACE, Held
from haoperator.lean import systemd, trace
from haoperator.lean.notify import error, warn

KILL_SECONDS = 5.0


def make_sure(name: str) -> int:
    """Exit code 0 if nothing is left."""
    if trace.ended_in_order():
        return 0
    try:
        fields = trace.find(TRACE, name)
        if fields is None:
            return 0
        kind, grace, *rest = fields
        if not (_unit if kind == "unit" else _containers)(name, int(grace), rest):
            return 1
        trace.remove(TRACE, name)
    except (OSError, ValueError) as err:
        warn(f"app {name}: cannot make sure that it stopped: {err}")
        return 1
    return 0


def _unit(name: str, grace: int, units: list[str]) -> bool:
    for unit in units:
        if problem := systemd.order("stop", "--", unit, seconds=grace):
            warn(f"app {name}: {problem}; killing {unit}")
            systemd.order("kill", "--signal=KILL", "--", unit, seconds=KILL_SECONDS)
            if problem := systemd.order("stop", "--", unit, seconds=KILL_SECONDS):
                error(f"app {name}: {problem}")
                return False
    return True


def _containers(name: str, grace: int, lines: list[str]) -> bool:
    """At the same time, so that it takes no longer than one of them."""
    gone: list[bool] = []
    threads = [
        threading.Thread(target=lambda held=held: gone.append(_container(name, grace, held)))
        for held in map(Held.parse, lines)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(gone) == len(threads) and all(gone)


def _container(name: str, grace: int, held: Held) -> bool:
    in_order = grace
    try:
        if docker_socket.stop(held.id, grace):
            return True
        problem = "Docker cannot stop it"
    except TimeoutError:
        in_order, problem = 0, "Docker does not stop it in time"
    except OSError as err:
        problem = f"Docker does not answer: {err}"
    pidfd = held.open()
    if pidfd is None and held.pid:
        return True
    if pidfd is None:
        error(f"app {name}: container {held.name}: {problem}")
        return False
    warn(f"app {name}: container {held.name}: {problem}; signalling it directly")
    for number, seconds in ((held.stop_signal, in_order), (signal.SIGKILL, KILL_SECONDS)):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, number)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if poll.poll(seconds * 1000):
            return True
    error(f"app {name}: container {held.name} cannot be killed")
    return False
