# SPDX-License-Identifier: Apache-2.0
"""From `docker start` to an application that serves: runs, and is healthy if it says so."""

from __future__ import annotations

import os
import time
from typing import Any

from haoperator.apps import container as containers
from haoperator.apps import neighbour
from haoperator.apps.errors import AppError
from haoperator.lean.notify import tell

LOOK_SECONDS = 0.1
EXTEND_SECONDS = 30


def wait(container: Any, app: str) -> int:
    """A pidfd of the container's first process, once it is ready. Raises AppError.

    With a HEALTHCHECK, Docker decides: it says `healthy`, or `unhealthy` after as
    many failures as the check allows, so this ends without a limit of its own.
    """
    pidfd = _pidfd(container, app)
    neighbour.forget_unanswered(container)
    told = 0.0
    while True:
        state = containers.state(container)
        if not state["Running"]:
            os.close(pidfd)
            raise AppError(_ended(container, app))
        match state.get("Health", {}).get("Status", "none"):
            case "starting":
                pass
            case "unhealthy":
                os.close(pidfd)
                raise AppError(f"app {app}: the container is unhealthy: {_last_check(state)}")
            case _:
                os.set_inheritable(pidfd, True)
                return pidfd
        if time.monotonic() - told > EXTEND_SECONDS / 3:
            told = time.monotonic()
            extend("waiting until the container is healthy")
        time.sleep(LOOK_SECONDS)


def extend(status: str) -> None:
    """Ask systemd for more time, because there is progress or somebody to wait for."""
    tell(f"EXTEND_TIMEOUT_USEC={EXTEND_SECONDS * 1_000_000}", f"STATUS={status}")


def _pidfd(container: Any, app: str) -> int:
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
    raise AppError(_ended(container, app))


def _ended(container: Any, app: str) -> str:
    state = containers.state(container)
    return (
        f"app {app}: the container ended at once with exit code {state['ExitCode']}"
        f"{_reason(state)}{containers.last_words(container)}"
    )


def _reason(state: dict[str, Any]) -> str:
    if state.get("OOMKilled"):
        return " (out of memory)"
    return f" ({state['Error']})" if state.get("Error") else ""


def _last_check(state: dict[str, Any]) -> str:
    log = state.get("Health", {}).get("Log") or [{}]
    return str(log[-1].get("Output", "")).strip() or "its check says nothing"
