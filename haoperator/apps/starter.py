# SPDX-License-Identifier: Apache-2.0
"""Starts an application, and becomes the small process that lives with it."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Sequence
from typing import Any

from haoperator.apps.errors import AppError
from haoperator.apps.held import TRACE, Held, number_of
from haoperator.lean import process, stop, trace
from haoperator.lean.configuration import CONFIGURATION, EXIT_MISCONFIGURED
from haoperator.lean.notify import error, info, tell, warn
from haoperator.systemd import names
from tomlconfig import App, AppKind, Config, ConfigError, load


class Interrupted(BaseException):
    """SIGTERM while the application starts."""


def run(name: str, *, again: bool = False) -> int:
    """Start it, tell systemd, and become the waiter. Returns only if it failed.

    `again`: its unit is active, and dockerd took the container along. Whoever stopped dockerd
    is not overruled; the unit's own start, on the other hand, starts dockerd.
    """
    try:
        config = load(CONFIGURATION)
        app = next((app for app in config.apps if app.name == name), None)
        if app is None:
            raise AppError(f"{CONFIGURATION}: there is no [app.{name}]", final=True)
        match app.kind:
            case AppKind.UNIT:
                trace.leave(TRACE, name, ["unit", str(_grace(app)), app.target])
                process.become("haoperator.apps.unit", [_as_json(app)])
            case AppKind.EXEC:
                process.become("haoperator.apps.command", [_as_json(app)])
            case _:
                return _Start(config, app, again).run()
    except (AppError, ConfigError) as err:
        return _failed(err)
    except OSError as err:
        error(f"app {name}: {err}")
        return 1


class _Start:
    """One start of an application that consists of containers."""

    def __init__(self, config: Config, app: App, again: bool) -> None:
        self._config = config
        self._app = app
        self._again = again
        self._found: Sequence[Any] = ()

    def run(self) -> int:
        from haoperator.apps import container, engine, readiness

        app = self._app
        orderly: list[str] = []
        signal.signal(signal.SIGTERM, _interrupt)
        began = time.time()
        try:
            client = engine.connect(readiness.extend, wakes=not self._again)
            deadline = time.monotonic() + app.start_timeout
            if app.kind is AppKind.COMPOSE:
                from haoperator.apps import compose

                started = compose.start(client, app, deadline, self._note)
                orderly = compose.stopping(app)
            else:
                started = [container.start(client, app, lambda found: self._note([found]))]
            self._note(started)
            self._point_out(started)
            pidfds = readiness.wait(started, app, deadline, began)
            stop.hold_back()  # a stop that comes from here on is the waiter's to carry out
        except (AppError, ConfigError) as err:
            return _failed(err)
        except OSError as err:
            error(f"app {app.name}: {err}")
            return 1
        except engine.sdk().errors.DockerException as err:
            error(f"app {app.name}: Docker: {err}")
            return 1
        except Interrupted:
            return self._interrupted()
        running = [each for each in started if each.id in pidfds]
        for each in running:
            info(f"app {app.name}: container {each.name} ({each.short_id}) runs")
        held = [_held(each) for each in running]
        trace.leave(TRACE, app.name, ["containers", str(_grace(app)), *map(str, held)])
        tell("READY=1")
        pairs = [text for one in held for text in (str(one), str(pidfds[one.id]))]
        process.become(
            "haoperator.apps.waiter",
            [app.name, str(_grace(app)), str(len(held)), *pairs, *orderly],
        )

    def _note(self, found: Sequence[Any]) -> None:
        """Written down before they start, so that they are found whatever happens."""
        self._found = found
        lines = [str(_held(container)) for container in found]
        trace.leave(TRACE, self._app.name, ["containers", str(_grace(self._app)), *lines])

    def _point_out(self, started: Sequence[Any]) -> None:
        from haoperator.apps.unreplicated import unreplicated

        replicated = [directory.path for directory in self._config.replicate]
        for container in started:
            for what in unreplicated(container.attrs.get("Mounts") or [], replicated):
                warn(
                    f"app {self._app.name}: {container.name} may write to {what}, which is not "
                    "replicated: a takeover loses that"
                )

    def _interrupted(self) -> int:
        info(f"app {self._app.name}: stopped while it was starting")
        for container in self._found:
            container.stop(timeout=_grace(self._app))
        trace.remove(TRACE, self._app.name)
        return 0


def _held(container: Any) -> Held:
    config = container.attrs.get("Config") or {}
    pid = int((container.attrs.get("State") or {}).get("Pid") or 0)
    return Held(container.id, container.name, pid, number_of(config.get("StopSignal") or ""))


def _grace(app: App) -> int:
    return math.ceil(app.stop_timeout)


def _as_json(app: App) -> str:
    """What the processes of units and commands need of it."""
    import shlex

    def words(line: str | None) -> list[str]:
        return shlex.split(line) if line else []

    return json.dumps(
        {
            "app": app.name,
            "unit": app.target,
            "path": names.bus_path(app.target),
            "start": words(app.target) if app.kind is AppKind.EXEC else [],
            "stop": words(app.exec_stop),
            "status": words(app.exec_status),
            "environment": dict(app.environment),
            "ready": "" if app.ready is None else str(app.ready.kind),
            "port": "" if app.ready is None else app.ready.target,
            "start_timeout": app.start_timeout,
            "stop_timeout": app.stop_timeout,
        }
    )


def _failed(err: AppError | ConfigError) -> int:
    tell(f"STATUS={str(err).splitlines()[0]}")
    error(str(err))
    return err.exit_code if isinstance(err, AppError) else EXIT_MISCONFIGURED


def _interrupt(_signal: int, _frame: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Interrupted


def main(arguments: list[str]) -> int:
    """`NAME`, from the waiter: dockerd took the container along."""
    return run(arguments[0], again=True)
