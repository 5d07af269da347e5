# SPDX-License-Identifier: Apache-2.0
"""Does dockerd answer, and is a container well?"""

from __future__ import annotations

import json

from haoperator.apps import docker_socket
from haoperator.checkers.conversation import reason
from haoperator.checkers.promise import Answer

_alive: dict[str, tuple[int, str]] = {}
"""The first process of each container that was well: its pid, and when it started."""


def docker(_target: str, timeout: float) -> Answer:
    """The daemon answers `/_ping`."""
    try:
        status, _ = docker_socket.request("GET", "/_ping", timeout)
    except OSError as err:
        return Answer(False, f"dockerd: {reason(err, timeout)}")
    return Answer(status == 200, f"dockerd answers {status}")


def container(target: str, timeout: float) -> Answer:
    """It runs and is not unhealthy. One whose health is not known yet is well, and so is one
    whose process lives on while dockerd is away: that is no failure of the application."""
    try:
        status, body = docker_socket.request("GET", f"/containers/{target}/json", timeout)
        found = json.loads(body)
    except (OSError, ValueError) as err:
        if target in _alive and _start_of(_alive[target][0]) == _alive[target][1]:
            return Answer(True, f"{target} lives, but dockerd: {reason(err, timeout)}")
        return Answer(False, f"{target}: dockerd: {reason(err, timeout)}")
    if status == 404:
        return Answer(False, f"{target}: there is no such container")
    _alive.pop(target, None)
    if status != 200:
        return Answer(False, f"{target}: dockerd answers {status}")
    state = found.get("State") or {}
    if state.get("Status") != "running":
        return Answer(False, f"{target} is {state.get('Status', 'unknown')}")
    health = (state.get("Health") or {}).get("Status")
    if health == "unhealthy":
        return Answer(False, f"{target} is unhealthy")
    pid = int(state.get("Pid") or 0)
    if start := _start_of(pid):
        _alive[target] = (pid, start)
    return Answer(True, f"{target} runs" + (", and is healthy" if health == "healthy" else ""))


def _start_of(pid: int) -> str:
    """When a process started, in ticks since the boot; empty if it is none or a zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in ("Z", "X") else fields[19]
