# SPDX-License-Identifier: Apache-2.0
"""Keeps the cluster's containers from running where this node is not the primary.

Whatever starts one (a restart policy, a dockerd that comes back, somebody's `docker
start`), it is stopped at once; a restart policy is corrected before dockerd can act on
it. On the primary this looks on: there the units of the applications decide.

It may run when: a container is allowed while the gate (ha-promote.service) is open. The
gate opens before the first container of the role is started, and closes after the last
one has stopped; systemd is asked again before each verdict.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from haoperator.apps import docker_socket, dockerd
from haoperator.apps.compose_labels import belongs
from haoperator.apps.events import Events
from haoperator.lean import systemd
from haoperator.lean.notify import error, tell, warn
from haoperator.lean.stop import StopRequest

GRACE_SECONDS = 3
"""For a container that must not run: its data is read-only here, so that it has little to do."""
ASK_SECONDS = 10.0
AGAIN_SECONDS = 2.0
"""After a container could not be stopped."""
SETTLE_SECONDS = 1.0
"""After the gate moved: both nodes are busy then, and what was started before can wait. What is
started from then on comes as an event of dockerd's, and is looked at at once."""
IDLE_SECONDS = 3600.0

_OPEN = ("active", "reloading")
_RUNNING = ("running", "paused", "restarting")
NO_RESTART = '{"RestartPolicy":{"Name":"no"}}'


class Guard:
    """`containers`: name → application; `projects`: compose file → application."""

    def __init__(
        self, containers: Mapping[str, str], projects: Mapping[str, str], gate: str, path: str
    ) -> None:
        self._containers = containers
        self._projects = projects
        self._gate = gate
        self._ear = systemd.Ear(path)
        self._events = Events(
            {
                "type": ["container"],
                "event": ["create", "rename", "start", "restart", "unpause", "update"],
            }
        )
        self._status = ""

    def watch(self, stop: StopRequest) -> None:
        """Until a stop is requested."""
        due = time.monotonic()
        while not stop.requested:
            if self._ear.heard():
                due = min(due, time.monotonic() + SETTLE_SECONDS)
            told = [self._events.lost_or_found(), bool(self._events.lines())]
            if any(told) or due <= time.monotonic():
                done = self._look()
                due = time.monotonic() + (IDLE_SECONDS if done else AGAIN_SECONDS)
            waits = [due - time.monotonic(), self._ear.patience, self._events.patience]
            seconds = min(wait for wait in waits if wait is not None)
            stop.wait(seconds, [*self._ear.descriptors, *self._events.descriptors])

    def _look(self) -> bool:
        """At all of them. False if it has to be done again."""
        state = systemd.active_state(self._gate)
        self._tell(state)
        if not state or state in _OPEN:
            return bool(state)
        # One that is just being stopped does not answer, and would be woken by the question.
        if not self._events.connected or not dockerd.runs():
            return True
        try:
            listed = docker_socket.document("/containers/json?all=1", ASK_SECONDS)
            done = [self._put_right(container) for container in listed]
        except (OSError, TypeError, KeyError, AttributeError) as err:
            warn(f"guard: dockerd does not tell what runs: {err}")
            return False
        return all(done)

    def _put_right(self, container: Mapping[str, Any]) -> bool:
        labels = container.get("Labels") or {}
        names = [str(name).lstrip("/") for name in container.get("Names") or []]
        app = next((self._containers[name] for name in names if name in self._containers), None)
        if app is None:
            files = (file for file in self._projects if belongs(labels, file))
            app = next((self._projects[file] for file in files), None)
        if app is None:
            return True
        what = f"app {app}: container {names[0] if names else container['Id'][:12]}"
        return self._correct(what, container["Id"]) & self._stop(what, container)

    def _correct(self, what: str, container: str) -> bool:
        found = docker_socket.document(f"/containers/{container}/json", ASK_SECONDS)
        policy = (found["HostConfig"].get("RestartPolicy") or {}).get("Name") or "no"
        if policy == "no":
            return True
        path = f"/containers/{container}/update"
        status, _ = docker_socket.request("POST", path, ASK_SECONDS, NO_RESTART)
        if status != 200:
            error(f"{what}: its restart policy {policy} cannot be changed ({status})")
            return False
        warn(f"{what}: restart policy changed from {policy} to no: only the cluster starts it")
        return True

    def _stop(self, what: str, container: Mapping[str, Any]) -> bool:
        if container.get("State") not in _RUNNING:
            return True
        # Asked again: the gate may have opened since, and the unit have started it.
        if systemd.active_state(self._gate) in _OPEN:
            return True
        warn(f"{what} was started here, and this node is not the primary: stopping it")
        if docker_socket.stop(container["Id"], GRACE_SECONDS):
            return True
        error(f"{what} cannot be stopped")
        return False

    def _tell(self, state: str) -> None:
        role = "the units decide here" if state in _OPEN else "none of the containers may run here"
        docker = "" if self._events.connected else "; dockerd does not run"
        if (status := role + docker) != self._status:
            self._status = status
            tell(f"STATUS={status}")


def main(arguments: list[str]) -> int:
    """One document of JSON: `containers`, `projects`, `gate`, `path`."""
    stop = StopRequest()
    options = json.loads(arguments[0])
    guard = Guard(options["containers"], options["projects"], options["gate"], options["path"])
    tell("READY=1")
    guard.watch(stop)
    return 0
