# SPDX-License-Identifier: Apache-2.0
"""The process that lives with commands: runs one that stays, or starts, asks and stops.

Whatever they leave behind is in the control group of the unit, and systemd kills it when
this has ended. Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from haoperator.apps import port
from haoperator.lean.notify import error, info, tell, warn
from haoperator.lean.stop import StopRequest

STATUS_SECONDS = 5.0
"""From one question to the next, and how long an answer may take."""
LOOK_SECONDS = 0.2
KILL_SECONDS = 5.0
IDLE_SECONDS = 3600.0


class CommandApp:
    """`options` is what `haoperator.apps.starter` hands over."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._app: str = options["app"]
        self._start: list[str] = options["start"]
        self._stop: list[str] = options["stop"]
        self._status: list[str] = options["status"]
        self._port: str = options["port"]
        self._start_timeout: float = options["start_timeout"]
        self._stop_timeout: float = options["stop_timeout"]
        self._by_itself: bool = options["ready"] == "notify"
        self._environment = {**os.environ, **options["environment"]}
        if not self._by_itself:
            self._environment.pop("NOTIFY_SOCKET", None)
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1

    def start(self, stop: StopRequest) -> str:
        """ "" once it is ready, or when a stop is requested; else what went wrong."""
        deadline = time.monotonic() + self._start_timeout
        tell(f"STATUS=starting {self._start[0]}")
        self._run()
        if self._status:
            stop.wait(self._start_timeout, [self._pidfd])
            if stop.requested:
                return ""
            if (problem := self._outcome("the start")) or (problem := self._asked(stop)):
                return problem
        while self._port and not stop.requested and not port.answers(self._port):
            if not self._status and self._ended():
                return self._outcome("it")
            if time.monotonic() >= deadline:
                return f"{self._port} does not answer within {self._start_timeout:g} s"
            stop.wait(LOOK_SECONDS, [] if self._status else [self._pidfd])
        return ""

    def ready(self) -> None:
        if not self._by_itself:
            tell("READY=1", f"STATUS={self._start[0]} runs")
        info(f"app {self._app}: {self._start[0]} runs")

    def wait(self, stop: StopRequest) -> str:
        """ "" when a stop is requested; else how it ended."""
        while not stop.requested:
            if not self._status:
                stop.wait(IDLE_SECONDS, [self._pidfd])
                if not stop.requested and self._ended():
                    return self._outcome("it")
            elif not stop.sleep(STATUS_SECONDS) and (problem := self._asked(stop)):
                return problem
        return ""

    def shut_down(self) -> str:
        """ "" if it has stopped in order; else what did not, and is killed."""
        tell("STOPPING=1", f"STATUS=stopping {self._start[0]}")
        deadline = time.monotonic() + self._stop_timeout
        problem = ""
        if self._stop:
            problem = self._called(self._stop, self._stop_timeout)
        if self._process is None or self._process.poll() is not None:
            return problem
        if not self._stop or problem or self._status:
            self._process.terminate()
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(KILL_SECONDS)
            return problem or f"it did not stop within {self._stop_timeout:g} s, and was killed"
        return problem

    def _run(self) -> None:
        self._process = subprocess.Popen(
            self._start, stdin=subprocess.DEVNULL, env=self._environment, restore_signals=True
        )
        self._pidfd = os.pidfd_open(self._process.pid)

    def _ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def _outcome(self, what: str) -> str:
        """How the first command ended; "" for a start that succeeded."""
        assert self._process is not None
        code = self._process.poll()
        if code is None:
            return f"{what} took longer than {self._start_timeout:g} s"
        if code < 0:
            return f"{what} was killed by signal {-code}"
        return "" if code == 0 and self._status else f"{what} ended with exit code {code}"

    def _asked(self, stop: StopRequest) -> str:
        problem = self._called(self._status, STATUS_SECONDS)
        return f"its status: {problem}" if problem and not stop.requested else ""

    def _called(self, words: Sequence[str], seconds: float) -> str:
        try:
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                env=self._environment,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"{words[0]} took longer than {seconds:g} s"
        except OSError as err:
            return f"{words[0]}: {err.strerror}"
        return f"{words[0]} ended with exit code {done.returncode}" if done.returncode else ""


def main(arguments: list[str]) -> int:
    """One document of JSON: the options."""
    stop = StopRequest()
    options = json.loads(arguments[0])
    app, command = options["app"], CommandApp(options)
    try:
        problem = command.start(stop)
    except OSError as err:
        problem = f"{options['start'][0]}: {err.strerror}"
    if not problem and not stop.requested:
        command.ready()
        problem = command.wait(stop)
    if problem:
        tell(f"STATUS={problem}")
        error(f"app {app}: {problem}")
        command.shut_down()
        return 1
    if unfinished := command.shut_down():
        warn(f"app {app}: {unfinished}")
    info(f"app {app}: stopped")
    return 0
