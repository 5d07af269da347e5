# SPDX-License-Identifier: Apache-2.0
"""The process that lives with a unit of systemd: starts it, ends when it fails, stops it.

The unit's own `Restart=` goes first: it has failed when systemd says so. Somebody who
stops it by hand has made it fail. Standard library only.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import Any

from haoperator.apps import port
from haoperator.apps.held import TRACE
from haoperator.lean import systemd, trace
from haoperator.lean.notify import error, info, tell, warn
from haoperator.lean.stop import StopRequest

LOOK_SECONDS = 0.2
SETTLE_SECONDS = 0.2
"""On the way to a restart by itself a unit passes through `failed`."""
KILL_SECONDS = 5.0
IDLE_SECONDS = 3600.0

_ENDED = ("inactive", "failed")


class UnitApp:
    """`options` is what `haoperator.apps.starter` hands over."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._app: str = options["app"]
        self._unit: str = options["unit"]
        self._port: str = options["port"]
        self._start_timeout: float = options["start_timeout"]
        self._stop_timeout: float = options["stop_timeout"]
        self._ear = systemd.Ear(options["path"])

    def start(self, stop: StopRequest) -> str:
        """ "" once it is ready, or when a stop is requested; else what went wrong."""
        self._point_out()
        deadline = time.monotonic() + self._start_timeout
        systemd.order("reset-failed", "--", self._unit, seconds=systemd.ASK_SECONDS)
        command = ["systemctl", "--no-ask-password", "start", "--", self._unit]
        tell(f"STATUS=starting {self._unit}")
        with subprocess.Popen(command, stderr=subprocess.PIPE) as starting:
            pidfd = os.pidfd_open(starting.pid)
            stop.wait(self._start_timeout, [pidfd])
            os.close(pidfd)
            if stop.requested or starting.poll() is None:
                starting.kill()
                starting.communicate()
                late = f"{self._unit} did not start within {self._start_timeout:g} s"
                return "" if stop.requested else late
            _, said = starting.communicate()
        if starting.returncode:
            lines = said.decode(errors="replace").strip().splitlines()
            return lines[0] if lines else f"{self._unit} does not start"
        while self._port and not stop.requested and not port.answers(self._port):
            if systemd.active_state(self._unit) in _ENDED:
                return f"{self._unit} ended before {self._port} answered"
            if time.monotonic() >= deadline:
                return f"{self._port} does not answer within {self._start_timeout:g} s"
            stop.sleep(LOOK_SECONDS)
        return ""

    def wait(self, stop: StopRequest) -> str:
        """ "" when a stop is requested; else how it ended."""
        while not stop.requested:
            if self._ear.heard() and (how := self._ended(stop)):
                return how
            patience = self._ear.patience
            stop.wait(IDLE_SECONDS if patience is None else patience, self._ear.descriptors)
        return ""

    def shut_down(self) -> bool:
        """True if it does not run any more."""
        tell("STOPPING=1", f"STATUS=stopping {self._unit}")
        problem = systemd.order("stop", "--", self._unit, seconds=self._stop_timeout)
        if not problem:
            return True
        warn(f"app {self._app}: {problem}; killing {self._unit}")
        systemd.order("kill", "--signal=KILL", "--", self._unit, seconds=KILL_SECONDS)
        return not systemd.order("stop", "--", self._unit, seconds=KILL_SECONDS)

    def _ended(self, stop: StopRequest) -> str:
        if systemd.active_state(self._unit) not in _ENDED:
            return ""
        stop.sleep(SETTLE_SECONDS)
        told = systemd.show(self._unit, "ActiveState", "Result")
        if stop.requested or not told or told[0] not in _ENDED:
            return ""
        if told[0] == "failed":
            return f"{self._unit} failed ({told[1]})"
        return f"{self._unit} ended, or somebody stopped it"

    def _point_out(self) -> None:
        told = systemd.show(self._unit, "UnitFileState")
        if told and told[0] in ("enabled", "enabled-runtime"):
            warn(
                f"app {self._app}: {self._unit} is enabled, and only the cluster may start it: "
                f"'systemctl disable {self._unit}', on both nodes"
            )


def main(arguments: list[str]) -> int:
    """One document of JSON: the options.

    Exit code 0 says that it was asked to stop and the unit has stopped; anything else
    leaves that to `ha-app --stop`.
    """
    stop = StopRequest()
    options = json.loads(arguments[0])
    app, unit = options["app"], UnitApp(options)
    problem = unit.start(stop)
    if not problem and not stop.requested:
        tell("READY=1", f"STATUS={options['unit']} runs")
        info(f"app {app}: {options['unit']} runs")
        problem = unit.wait(stop)
    if problem:
        tell(f"STATUS={problem}")
        error(f"app {app}: {problem}")
        return 1
    if not unit.shut_down():
        error(f"app {app}: {options['unit']} could not be stopped")
        return 1
    trace.remove(TRACE, app)
    info(f"app {app}: stopped")
    return 0
