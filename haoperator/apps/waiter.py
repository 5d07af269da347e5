# SPDX-License-Identifier: Apache-2.0
"""The process that lives with containers: ends when one of them dies, stops them on SIGTERM.

It holds a pidfd of each container's first process, so that it learns of a death from
the kernel, at once, whatever dockerd is doing; and it listens to dockerd's events for
what only dockerd knows: that a container is `unhealthy`. Standard library only, 12 MB.

A dockerd that is stopped is no failure. Where its containers live on (`live-restore`),
this waits for it; where they stop with it, this starts them when it is back, for as
long as `ha-app` waits for a dockerd.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from enum import Enum, auto

from haoperator.apps import docker_socket, dockerd
from haoperator.apps.events import Events
from haoperator.apps.held import TRACE, Held
from haoperator.lean import process, trace
from haoperator.lean.notify import error, info, tell, warn, watchdog_seconds
from haoperator.lean.stop import StopRequest

ASK_SECONDS = 2.0
KILL_SECONDS = 5.0
IDLE_SECONDS = 3600.0


class End(Enum):
    """Why the wait is over."""

    STOP = auto()
    DEATH = auto()
    UNHEALTHY = auto()


class Waiter:
    """`pidfds`, in the order of `containers`, become readable when a first process is gone.

    `orderly` is a command that stops all of them in their own order, for a project of
    several; without it, Docker is asked to stop each.
    """

    def __init__(
        self,
        app: str,
        grace: int,
        containers: Sequence[Held],
        pidfds: Sequence[int],
        orderly: Sequence[str] = (),
    ) -> None:
        self._app = app
        self._grace = grace
        self._containers = dict(zip(pidfds, containers, strict=True))
        self._orderly = list(orderly)
        self._events = Events(
            {
                "type": ["container"],
                "event": ["health_status"],
                "container": [held.id for held in containers],
            }
        )
        self._status = ""
        self.ended: Held = containers[0]
        """The one that ended the wait."""

    def wait(self, stop: StopRequest) -> End:
        watchdog = watchdog_seconds()
        idle = watchdog / 2 if watchdog else IDLE_SECONDS
        while True:
            tell("WATCHDOG=1")
            # Asked at each change and for each event: an event that is repeated may be old.
            if self._events.lost_or_found() and self._is_unhealthy():
                return End.UNHEALTHY
            self._tell_status()
            patience = self._events.patience
            seconds = idle if patience is None else min(idle, patience)
            ready = stop.wait(seconds, [*self._containers, *self._events.descriptors])
            if stop.requested:
                return End.STOP
            for pidfd in set(ready) & set(self._containers):
                self.ended = self._containers[pidfd]
                return End.DEATH
            if ready and self._events.lines() and self._is_unhealthy():
                return End.UNHEALTHY

    def how_it_died(self) -> str:
        """For people; asks Docker, which is a moment behind the kernel."""
        try:
            docker_socket.wait_for_end(self.ended.id, ASK_SECONDS)
            state = docker_socket.state(self.ended.id, ASK_SECONDS)
            code = int(state["ExitCode"])
        except (OSError, KeyError, TypeError, ValueError):
            return "died"
        if state.get("OOMKilled"):
            return f"was killed because it was out of memory (exit code {code})"
        if code > 128:
            return f"died with exit code {code} (signal {code - 128})"
        return f"ended with exit code {code}"

    def how_unhealthy(self) -> str:
        """What its health check said last."""
        try:
            log = docker_socket.state(self.ended.id, ASK_SECONDS)["Health"]["Log"]
            said = str(log[-1]["Output"]).strip()
        except (OSError, KeyError, TypeError, IndexError):
            said = ""
        return f"is unhealthy: {said or 'its check says nothing'}"

    def name_of(self, held: Held) -> str:
        return "the container" if len(self._containers) == 1 else f"the container {held.name}"

    def shut_down(self) -> bool:
        """Stop the containers. True if they are gone for certain."""
        answers = dockerd.runs() and docker_socket.answers(ASK_SECONDS)
        if answers:
            self._by_docker()
            if self._gone(0.5):
                return True
        else:
            warn(f"app {self._app}: Docker does not answer")
        warn(f"app {self._app}: signalling the container directly")
        if not answers:
            self._signal_all(None)
            if self._gone(self._grace):
                return True
        self._signal_all(signal.SIGKILL)
        return self._gone(KILL_SECONDS)

    def _by_docker(self) -> None:
        try:
            if self._orderly:
                # What it says is for the journal.
                subprocess.run(
                    self._orderly,
                    timeout=self._grace + docker_socket.STOP_MARGIN_SECONDS,
                    stdin=subprocess.DEVNULL,
                    check=False,
                )
                return
            for held in self._containers.values():
                docker_socket.stop(held.id, self._grace)
        except subprocess.TimeoutExpired:
            warn(f"app {self._app}: {self._orderly[0]} does not stop it in time")
        except OSError as err:
            warn(f"app {self._app}: Docker does not stop it: {err}")

    def _signal_all(self, number: int | None) -> None:
        """`None`: to each the signal that ends it in order."""
        for pidfd, held in self._containers.items():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, held.stop_signal if number is None else number)

    def _is_unhealthy(self) -> bool:
        # One that is just being stopped does not answer, and would be woken by the question.
        if not self._events.connected or not dockerd.runs():
            return False
        for held in self._containers.values():
            try:
                health = docker_socket.state(held.id, ASK_SECONDS).get("Health") or {}
            except OSError:
                continue
            if health.get("Status") == "unhealthy":
                self.ended = held
                return True
        return False

    def _tell_status(self) -> None:
        names = ", ".join(held.name for held in self._containers.values())
        runs = f"container {names} runs" if len(self._containers) == 1 else f"{names} run"
        status = runs if self._events.connected else f"{runs}; dockerd does not run or not answer"
        if status != self._status:
            if self._status:
                info(f"app {self._app}: {status}")
            self._status = status
            tell(f"STATUS={status}")

    def _gone(self, within: float) -> bool:
        deadline = time.monotonic() + within
        for pidfd in self._containers:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return False
        return True


def main(arguments: list[str]) -> int:
    """`APP GRACE COUNT (CONTAINER PIDFD)… [COMMAND…]`: the containers run.

    Exit code 0 says that it was asked to stop and they are gone; anything else leaves
    that to `ha-app --stop`.
    """
    stop = StopRequest()
    app, grace, count, *rest = arguments
    pairs = rest[: 2 * int(count)]
    held = [Held.parse(text) for text in pairs[::2]]
    pidfds = [int(text) for text in pairs[1::2]]
    waiter = Waiter(app, int(grace), held, pidfds, rest[2 * int(count) :])
    match waiter.wait(stop):
        case End.STOP:
            return _stop(app, waiter)
        case End.DEATH if not dockerd.runs():
            return _start_again(app, pidfds)
        case End.DEATH:
            how = waiter.how_it_died()
        case End.UNHEALTHY:
            how = waiter.how_unhealthy()
    said = f"{waiter.name_of(waiter.ended)} {how}"
    tell(f"STATUS={said}")
    words = docker_socket.last_words(waiter.ended.id, ASK_SECONDS)
    error(f"app {app}: {said}" + (f"; it said last:\n{words}" if words else ""))
    return 1


def _stop(app: str, waiter: Waiter) -> int:
    tell("STOPPING=1", "STATUS=stopping the container")
    if not waiter.shut_down():
        error(f"app {app}: it could not be stopped")
        return 1
    trace.remove(TRACE, app)
    info(f"app {app}: stopped")
    return 0


def _start_again(app: str, pidfds: Sequence[int]) -> int:
    """The container went with dockerd. Its unit stays as it is: this is no failure of the
    application, and counts as one only if dockerd does not come back in time."""
    warn(f"app {app}: dockerd has stopped, and the container with it: waiting for dockerd")
    tell("STATUS=waiting for dockerd, which took the container along")
    for pidfd in pidfds:
        os.close(pidfd)
    process.become("haoperator.apps.starter", [app], packages=True)
