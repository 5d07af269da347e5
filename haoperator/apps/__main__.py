# SPDX-License-Identifier: Apache-2.0
"""`ha-app NAME`: run an application. `ha-app --stop NAME`: be sure that it does not run."""

from __future__ import annotations

import signal
import sys
from functools import partial
from typing import Any

from haoperator.apps import docker_socket, waiter
from haoperator.apps.errors import AppError
from haoperator.lean import process, stop, trace
from haoperator.lean.configuration import CONFIGURATION, EXIT_MISCONFIGURED
from haoperator.lean.notify import error, info, tell, warn


class Interrupted(BaseException):
    """SIGTERM while the application starts."""


def run(name: str) -> int:
    """Start the container, tell systemd, and become the waiter. Returns only if it failed."""
    from haoperator.apps import container as containers
    from haoperator.apps import engine, readiness
    from tomlconfig import ConfigError, load

    started: list[Any] = []

    def found(container: Any) -> None:
        trace.leave(waiter.TRACE, name, [container.id])
        started.append(container)

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app = next((app for app in load(CONFIGURATION).apps if app.name == name), None)
        if app is None:
            raise AppError(f"{CONFIGURATION}: there is no [app.{name}]", final=True)
        client = engine.connect(partial(readiness.extend, "waiting for Docker"))
        container = containers.start(client, app, found)
        pidfd = readiness.wait(container, name)
        stop.hold_back()  # a stop that comes from here on is the waiter's to carry out
    except (AppError, ConfigError) as err:
        tell(f"STATUS={str(err).splitlines()[0]}")
        error(str(err))
        return err.exit_code if isinstance(err, AppError) else EXIT_MISCONFIGURED
    except OSError as err:
        error(f"app {name}: {err}")
        return 1
    except Interrupted:
        info(f"app {name}: stopped while it was starting")
        for container in started[-1:]:
            container.stop(timeout=containers.STOP_SECONDS)
        trace.remove(waiter.TRACE, name)
        return 0
    tell("READY=1", f"STATUS=container {container.name} runs")
    info(f"app {name}: container {container.name} ({container.short_id}) runs")
    process.become(
        "haoperator.apps.waiter", [name, container.id, str(pidfd), str(containers.STOP_SECONDS)]
    )


def make_sure_it_stopped(name: str) -> int:
    """For `ExecStopPost=`: whatever ended the unit, its container does not run afterwards."""
    if trace.ended_in_order():
        return 0
    try:
        fields = trace.find(waiter.TRACE, name)
        if fields is None:
            return 0
        if not docker_socket.stop(fields[0], grace=10):
            error(f"app {name}: Docker could not stop the container {fields[0][:12]}")
            return 1
        trace.remove(waiter.TRACE, name)
    except OSError as err:
        warn(f"app {name}: cannot make sure that it stopped: {err}")
        return 1
    return 0


def _interrupt(_signal: int, _frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Interrupted


def main() -> int:
    match sys.argv[1:]:
        case ["--stop", name]:
            return make_sure_it_stopped(name)
        case [name] if not name.startswith("-"):
            return run(name)
        case _:
            error("usage: ha-app NAME | ha-app --stop NAME")
            return 2


if __name__ == "__main__":
    sys.exit(main())
