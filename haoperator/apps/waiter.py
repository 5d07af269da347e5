# SPDX-License-Identifier: Apache-2.0
"""The process that lives with a container: ends when it dies, stops it on SIGTERM.

It holds a pidfd of the container's first process, so that it learns of its death
from the kernel, at once, whatever dockerd is doing. Standard library only, 11 MB.
"""

from __future__ import annotations

import select
import signal
import time

from haoperator.apps import docker_socket
from haoperator.lean import trace
from haoperator.lean.notify import error, info, tell, warn, watchdog_seconds
from haoperator.lean.stop import StopRequest

TRACE = "app"
"""The kind of an application's trace in /run."""
EXIT_CODE_SECONDS = 2.0
PING_SECONDS = 2.0
KILL_SECONDS = 5.0
IDLE_SECONDS = 3600.0


class Waiter:
    """`pidfd` becomes readable when the container's first process is gone."""

    def __init__(self, app: str, container: str, pidfd: int, grace: int) -> None:
        self._app = app
        self._container = container
        self._pidfd = pidfd
        self._grace = grace

    def wait(self, stop: StopRequest) -> bool:
        """True when a stop is requested, False when the container died."""
        watchdog = watchdog_seconds()
        while True:
            tell("WATCHDOG=1")
            ready = stop.wait(watchdog / 2 if watchdog else IDLE_SECONDS, [self._pidfd])
            if stop.requested:
                return True
            if ready:
                return False

    def how_it_died(self) -> str:
        """For people; asks Docker, which is a moment behind the kernel."""
        code = docker_socket.exit_code(self._container, EXIT_CODE_SECONDS)
        if code is None:
            return "died"
        if code > 128:
            return f"died with exit code {code} (signal {code - 128})"
        return f"ended with exit code {code}"

    def shut_down(self) -> bool:
        """Stop the container. True if it is gone for certain."""
        longest = PING_SECONDS + docker_socket.STOP_MARGIN_SECONDS + 2 * self._grace + KILL_SECONDS
        tell(f"EXTEND_TIMEOUT_USEC={int((longest + 5) * 1_000_000)}")
        if docker_socket.answers(PING_SECONDS):
            try:
                docker_socket.stop(self._container, self._grace)
            except OSError as err:
                warn(f"app {self._app}: Docker does not stop it: {err}")
        else:
            warn(f"app {self._app}: Docker does not answer")
        if self._gone(0.5):
            return True
        warn(f"app {self._app}: signalling the container directly")
        for number, seconds in ((signal.SIGTERM, self._grace), (signal.SIGKILL, KILL_SECONDS)):
            try:
                signal.pidfd_send_signal(self._pidfd, number)
            except ProcessLookupError:
                return True
            if self._gone(seconds):
                return True
        return False

    def _gone(self, within: float) -> bool:
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        deadline = time.monotonic() + within
        while not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            if time.monotonic() >= deadline:
                return False
        return True


def main(arguments: list[str]) -> int:
    """`APP CONTAINER PIDFD GRACE`: the container runs.

    Exit code 0 says that it was asked to stop and the container is gone; anything
    else leaves that to `ha-app --stop`.
    """
    stop = StopRequest()
    app, container, pidfd, grace = arguments
    waiter = Waiter(app, container, int(pidfd), int(grace))
    if not waiter.wait(stop):
        how = waiter.how_it_died()
        tell(f"STATUS=the container {how}")
        words = docker_socket.last_words(container, EXIT_CODE_SECONDS)
        error(f"app {app}: the container {how}" + (f"; it said last:\n{words}" if words else ""))
        return 1
    tell("STOPPING=1", "STATUS=stopping the container")
    if not waiter.shut_down():
        error(f"app {app}: the container {container[:12]} could not be stopped")
        return 1
    trace.remove(TRACE, app)
    info(f"app {app}: stopped")
    return 0
