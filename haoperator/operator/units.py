# SPDX-License-Identifier: Apache-2.0
"""The units of the cluster: what systemd says of them, and the jobs that change them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine

from dbus_next.aio import MessageBus

from haoperator.core import events as on
from haoperator.systemd import names
from haoperator.systemd.jobs import JobResult, Systemd, SystemdError
from tomlconfig import Config, OnFailure, RunsOn

log = logging.getLogger(__name__)

RETRY_SECONDS = 10.0
"""Before an application that failed too often is tried again, for want of another node."""

_BETWEEN = ("activating", "deactivating")


class Units:
    """The gate, VIPs, applications and checkers of this node. `states` maps each unit to
    systemd's ActiveState; `changed` is called after it changed."""

    def __init__(
        self, config: Config, post: Callable[[on.Event], None], changed: Callable[[], None]
    ) -> None:
        self.states: dict[str, str] = {}
        self._post = post
        self._changed = changed
        self._checkers = {names.checker(c.name): c for c in config.checkers}
        self._failing: set[str] = set()
        self._watched = [
            names.PROMOTE,
            *(names.vip(v.name) for v in config.vips),
            *(names.app(a.name) for a in config.apps),
            *self._checkers,
        ]
        self._systemd = Systemd(self._unit_changed, self._watched.__contains__)
        self._jobs: set[asyncio.Task[None]] = set()
        self._role = ""
        self._gate_moved = asyncio.Event()

    async def connect(self, bus: MessageBus) -> None:
        """Subscribe on a new connection to the bus, then read every state once."""
        await self._systemd.connect(bus)
        if names.PROMOTE not in self.states:
            self._post(on.GateChanged(False))

    async def start_role(self, target: str) -> None:
        """Flip the role, unless this node is on its way out: a role pulls in
        ha-cluster.target, and starting it would take the stop back. The last call counts."""
        self._role = target
        while target == names.PRIMARY and self.states.get(names.PROMOTE) in _BETWEEN:
            # The gate was refused and is on its way down: systemd would merge this start with
            # the one that is about to fail, and nobody would try again.
            self._gate_moved.clear()
            await self._gate_moved.wait()
            if self._role != target:
                return
        try:
            if await self._systemd.is_leaving():
                return
            result = await self._systemd.run_job("start", target)
        except SystemdError as err:
            log.error("%s: %s", target, err)
            return
        if result is not JobResult.DONE:
            log.warning("%s: %s", target, result)

    async def start_cluster(self) -> None:
        """Queue the start of ha-cluster.target. Raises SystemdError."""
        await self._systemd.start(names.CLUSTER)

    async def stop_cluster(self) -> None:
        """Queue the stop of ha-cluster.target: it ends this very process. Raises SystemdError."""
        await self._systemd.stop(names.CLUSTER)

    async def is_leaving(self) -> bool:
        """Whether this node leaves the cluster or the machine goes down, by systemd's own jobs."""
        try:
            return await self._systemd.is_leaving()
        except SystemdError as err:
            log.warning("taken for a restart: %s", err)
            return False

    async def try_again(self, unit: str) -> None:
        """Start a unit anew that gave up, after a pause, if the role is still here."""
        await asyncio.sleep(RETRY_SECONDS)
        if self.states.get(names.PROMOTE) == "active":
            await self._run("reset-failed", unit)
            await self._run("start", unit)

    def _unit_changed(self, unit: str, active_state: str, sub_state: str, result: str) -> None:
        former, self.states[unit] = self.states.get(unit), active_state
        if unit in self._checkers and self._checkers[unit].on is RunsOn.BOTH:
            self._note_readiness(unit, active_state, sub_state)
        if unit in self._checkers and sub_state == "auto-restart":
            self._checker_failed(unit, result)
        elif active_state == former:
            return
        elif unit == names.PROMOTE:
            self._gate_moved.set()
            if active_state != "activating":
                self._post(on.GateChanged(active_state == "active"))
        elif active_state == "failed":
            self._beside(self._confirm_failure(unit, result))
        self._changed()

    def _note_readiness(self, unit: str, active_state: str, sub_state: str) -> None:
        """From its failure until it is active again, a checker says that a takeover would lack
        what it looks at."""
        if active_state == "failed" or sub_state == "auto-restart":
            self._set_failing(unit, True)
        elif active_state == "active":
            self._set_failing(unit, False)
        elif active_state == "inactive" and unit in self._failing:
            self._beside(self._confirm_stop(unit))

    async def _confirm_stop(self, unit: str) -> None:
        """On the way to a restart a unit passes through `inactive` too; one that was stopped by
        hand says nothing any more."""
        try:
            stopped = await self._systemd.active_state(unit) == "inactive"
        except SystemdError as err:
            log.warning("taken for restarted: %s", err)
            return
        if stopped:
            self._set_failing(unit, False)

    def _set_failing(self, unit: str, failing: bool) -> None:
        if (unit in self._failing) is failing:
            return
        self._failing ^= {unit}
        which = ", ".join(sorted(self._checkers[unit].name for unit in self._failing))
        problem = f"checker {which} failed" if which else ""
        if problem:
            log.warning("not ready to take over: %s", problem)
        else:
            log.info("ready to take over again")
        self._post(on.ReadinessChanged(problem))

    async def _confirm_failure(self, unit: str, result: str) -> None:
        """On the way to a restart a unit passes through `failed`; systemd answers when it is
        through with that."""
        try:
            if await self._systemd.active_state(unit) != "failed":
                return
        except SystemdError as err:
            log.warning("taken for failed: %s", err)
        if unit in self._checkers:
            self._checker_failed(unit, result)
        else:
            log.warning("%s failed and is not restarted any more: %s", unit, result)
            self._post(on.AppGaveUp(unit))

    def _checker_failed(self, unit: str, result: str) -> None:
        checker = self._checkers[unit]
        if self.states.get(names.PROMOTE) != "active":
            return  # `_set_failing` has said it, once
        log.warning("%s failed (%s): %s", unit, result, checker.on_failure)
        if checker.on_failure is OnFailure.FAILOVER:
            self._post(on.AppGaveUp(unit))
        elif checker.on_failure in (OnFailure.RESTART, OnFailure.STOP) and checker.app is not None:
            self._beside(self._run(str(checker.on_failure), names.app(checker.app)))

    async def _run(self, verb: str, unit: str) -> None:
        try:
            if verb == "reset-failed":
                await self._systemd.reset_failed(unit)
            else:
                await self._systemd.run_job(verb, unit)
        except SystemdError as err:
            log.warning("%s %s: %s", verb, unit, err)

    def _beside(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)
