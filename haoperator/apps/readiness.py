# SPDX-License-Identifier: Apache-2.0
"""From `docker start` to an application that serves: runs, and shows what it is ready by."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from typing import Any

from haoperator.apps import container as containers
from haoperator.apps import docker_socket, neighbour, port
from haoperator.apps.errors import AppError
from haoperator.lean.notify import tell
from tomlconfig.model import App, Ready, ReadyKind

LOOK_SECONDS = 0.1
LOG_LOOK_SECONDS = 0.5
"""Between two looks at a log, which dockerd has to read."""
EXTEND_SECONDS = 30

_LOG_LINES = 2000


def wait(found: Sequence[Any], app: App, deadline: float, began: float) -> dict[str, int]:
    """Id of a container → pidfd of its first process, once all are ready. Raises AppError.

    `deadline`: on the monotonic clock. `began`: seconds since 1970 before anything was started;
    what a log says counts from there.

    A container that ended with exit code 0 meanwhile has done its work (a service of a
    project that only prepares something), if there is another one that runs.
    """
    pidfds: dict[str, int] = {}
    try:
        for container in found:
            pidfd = _pidfd(container, app, alone=len(found) == 1)
            if pidfd is not None:
                pidfds[container.id] = pidfd
                neighbour.forget_unanswered(container)
        missing = f"waiting for {app.ready}" if app.ready else "waiting until it is healthy"
        told = 0.0
        # Each is looked at, also behind one that is not ready: it may have failed.
        while False in [_ready(each, app, pidfds, began) for each in found]:
            if time.monotonic() >= deadline:
                raise AppError(
                    f"app {app.name}: not ready within {app.start_timeout:g} s, {missing}"
                    + containers.last_words(found[0])
                )
            if time.monotonic() - told > EXTEND_SECONDS / 3:
                told = time.monotonic()
                extend(missing)
            by_log = app.ready is not None and app.ready.kind is ReadyKind.LOG
            time.sleep(LOG_LOOK_SECONDS if by_log else LOOK_SECONDS)
        if not pidfds:
            raise AppError(f"app {app.name}: all of its containers have ended")
    except BaseException:
        for pidfd in pidfds.values():
            os.close(pidfd)
        raise
    for pidfd in pidfds.values():
        os.set_inheritable(pidfd, True)
    return pidfds


def extend(status: str) -> None:
    """Ask systemd for more time, because there is progress or somebody to wait for."""
    tell(f"EXTEND_TIMEOUT_USEC={EXTEND_SECONDS * 1_000_000}", f"STATUS={status}")


def _ready(container: Any, app: App, pidfds: dict[str, int], began: float) -> bool:
    """Whether one container is ready. Raises AppError when it will never be."""
    state = containers.state(container)
    if not state["Running"]:
        if container.id in pidfds and not _done(state, alone=len(pidfds) == 1):
            raise AppError(_ended(container, app))
        if (pidfd := pidfds.pop(container.id, None)) is not None:
            os.close(pidfd)
        return True
    health = (state.get("Health") or {}).get("Status", "none")
    if health == "unhealthy":
        raise AppError(f"app {app.name}: {container.name} is unhealthy: {_last_check(state)}")
    if app.ready is None:
        return bool(health != "starting")
    if app.ready.kind is ReadyKind.LOG:
        log = _log(container, state, began)
        return re.search(app.ready.target, log, re.MULTILINE) is not None
    return _shows(app.ready, container, app, health)


def _shows(ready: Ready, container: Any, app: App, health: str) -> bool:
    match ready.kind:
        case ReadyKind.HEALTH:
            if health == "none" and app.kind != "compose":
                raise AppError(
                    f'app {app.name}: ready = "health", and {container.name} has no health check',
                    "give it one, by the key healthcheck or in its image",
                    final=True,
                )
            return bool(health != "starting")
        case ReadyKind.TCP:
            return port.answers(ready.target)
        case _:
            return True


def _log(container: Any, state: dict[str, Any], began: float) -> str:
    """What it has said since it was started this time. dockerd notes the time of the start a
    moment after the first lines; one that was found running is looked at from there."""
    started = unix_time(state["StartedAt"])
    since = began if started >= began else started - 1.0
    path = f"/containers/{container.id}/logs?stdout=1&stderr=1&tail={_LOG_LINES}&since={since:.6f}"
    status, body = docker_socket.request("GET", path, 10.0)
    return docker_socket.demultiplexed(body).decode(errors="replace") if status == 200 else ""


def unix_time(said: str) -> float:
    """`2023-06-10T00:00:01.123456789Z` → seconds since 1970."""
    import datetime

    whole, _, rest = said.removesuffix("Z").partition(".")
    moment = datetime.datetime.fromisoformat(f"{whole}+00:00")
    return moment.timestamp() + float(f"0.{rest or 0}")


def _pidfd(container: Any, app: App, *, alone: bool) -> int | None:
    """None for a container that has done its work already."""
    before = containers.state(container)
    if before["Running"]:
        try:
            pidfd = os.pidfd_open(before["Pid"])
        except ProcessLookupError:
            raise AppError(_ended(container, app)) from None
        # Only if it still runs under this number now, the descriptor is that of its process.
        if containers.state(container)["Pid"] == before["Pid"]:
            return pidfd
        os.close(pidfd)
    if _done(containers.state(container), alone=alone):
        return None
    raise AppError(_ended(container, app))


def _done(state: dict[str, Any], *, alone: bool) -> bool:
    return not alone and state["Status"] == "exited" and state["ExitCode"] == 0


def _ended(container: Any, app: App) -> str:
    state = containers.state(container)
    return (
        f"app {app.name}: {container.name} ended at once with exit code {state['ExitCode']}"
        f"{_reason(state)}{containers.last_words(container)}"
    )


def _reason(state: dict[str, Any]) -> str:
    if state.get("OOMKilled"):
        return " (out of memory)"
    return f" ({state['Error']})" if state.get("Error") else ""


def _last_check(state: dict[str, Any]) -> str:
    log = state.get("Health", {}).get("Log") or [{}]
    return str(log[-1].get("Output", "")).strip() or "its check says nothing"
