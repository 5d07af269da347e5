# SPDX-License-Identifier: Apache-2.0
"""The witnesses: machines outside the cluster that answer, unless this node is the isolated one.

An answer proves that the witness was reached after its *question was asked*: that is the
time that counts, not when the answer came.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from enum import StrEnum
from functools import partial

from haoperator.heartbeat import connect
from haoperator.heartbeat.ping import Ping
from tomlconfig.model import Witness as Model

log = logging.getLogger(__name__)

MAX_PERIOD = 0.5


class Reach(StrEnum):
    NONE = "none"
    REACHABLE = "reachable"
    UNREACHABLE = "unreachable"


def freshness(detect: float) -> float:
    """How long ago a question may have been asked whose answer counts, in seconds.

    When the peer is declared silent, `detect` after its last heartbeat, the witness must
    have been asked *after* the paths were cut, or its answer says nothing of who is isolated:
    architecture, section 7. `tomlconfig.rules` demands it of the configuration.
    """
    return detect / 2


def period(detect: float) -> float:
    """How often to ask: four times within the freshness, and twice a second at least."""
    return min(freshness(detect) / 4, MAX_PERIOD)


class Witness:
    """Asks all that `model` names; one fresh answer is enough. `answered` is called after each
    answer. Time is CLOCK_MONOTONIC."""

    def __init__(self, model: Model | None, detect: float, answered: Callable[[], None]) -> None:
        model = model or Model()
        self._freshness = freshness(detect)
        self._period = period(detect)
        self._answered = answered
        self._ping = Ping(model.ping, lambda target, at: self._note(("ping", target), at))
        self._tcp, self._http = model.tcp, model.http
        self._asked_at: dict[tuple[str, str], float | None] = dict.fromkeys(
            (kind, target)
            for kind, targets in (("ping", model.ping), ("tcp", model.tcp), ("http", model.http))
            for target in targets
        )

    def reach(self, now: float) -> Reach:
        """The level that the operator sees."""
        if not self._asked_at:
            return Reach.NONE
        newest = max((at for at in self._asked_at.values() if at is not None), default=None)
        fresh = newest is not None and now - newest <= self._freshness
        return Reach.REACHABLE if fresh else Reach.UNREACHABLE

    def evidence(self, now: float) -> list[dict[str, object]]:
        """For each witness, how long ago the last question was asked that it answered."""
        return [
            {"kind": kind, "target": target, "age": None if at is None else now - at}
            for (kind, target), at in self._asked_at.items()
        ]

    async def ask_for_ever(self) -> None:
        """Never returns, unless there is nobody to ask."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._ping_for_ever())
            for target in self._tcp:
                question = partial(connect.accepts, target)
                group.create_task(self._connect_for_ever("tcp", target, question))
            for target in self._http:
                question = partial(connect.speaks_http, target)
                group.create_task(self._connect_for_ever("http", target, question))

    def _note(self, witness: tuple[str, str], asked_at: float) -> None:
        self._asked_at[witness] = max(asked_at, self._asked_at[witness] or 0.0)
        self._answered()

    async def _ping_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            sockets = self._ping.open()
        except OSError as err:
            log.error("the witness cannot be pinged: no ICMP socket: %s", err)
            return
        try:
            for sock in sockets:
                loop.add_reader(sock, self._ping.drain)
            while sockets:
                self._ping.ask(time.monotonic())
                await asyncio.sleep(self._period)
        finally:
            for sock in sockets:
                loop.remove_reader(sock)
            self._ping.close()

    async def _connect_for_ever(
        self, kind: str, target: str, question: Callable[[], Awaitable[None]]
    ) -> None:
        trouble = ""
        while True:
            asked_at = time.monotonic()
            said = ""
            try:
                async with asyncio.timeout(self._freshness):
                    await question()
                self._note((kind, target), asked_at)
            except TimeoutError:
                said = "no answer"
            except OSError as err:
                said = err.strerror or str(err)
            if said and said != trouble:
                log.warning("witness %s: %s", target, said)
            trouble = said
            await asyncio.sleep(asked_at + self._period - time.monotonic())
