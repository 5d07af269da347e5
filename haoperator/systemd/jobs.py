# SPDX-License-Identifier: Apache-2.0
"""Jobs of systemd and the states of units: the one way in which the cluster drives units.

Jobs are queued through pystemd (`haoperator.systemd.calls`); that they ended, and
that a unit changed, arrives as signals on the bus connection of the process
(dbus-next). Subscribed first, started then: no end of a job is missed.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

from dbus_next import DBusError, Message, MessageType, Variant
from dbus_next.aio import MessageBus

from haoperator.systemd import bus, names
from haoperator.systemd.calls import SystemdError, call

__all__ = ["JobPath", "JobResult", "Systemd", "SystemdError"]

JobPath = str
OnUnitChange = Callable[[str, str, str, str], None]

_NAME = "org.freedesktop.systemd1"
_MANAGER_PATH = "/org/freedesktop/systemd1"
_MANAGER = "org.freedesktop.systemd1.Manager"
_UNIT = "org.freedesktop.systemd1.Unit"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_ENDED_JOBS_KEPT = 256
_CALL_SECONDS = 5.0

_MATCHES = (
    f"type='signal',sender='{_NAME}',interface='{_MANAGER}',member='JobRemoved'",
    f"type='signal',sender='{_NAME}',interface='{_PROPERTIES}',member='PropertiesChanged',"
    f"path_namespace='{_MANAGER_PATH}/unit'",
)


class JobResult(StrEnum):
    """How a job ended (JobRemoved in org.freedesktop.systemd1(5))."""

    DONE = "done"
    CANCELED = "canceled"
    TIMEOUT = "timeout"
    FAILED = "failed"
    DEPENDENCY = "dependency"
    SKIPPED = "skipped"
    INVALID = "invalid"
    ASSERT = "assert"
    UNSUPPORTED = "unsupported"
    COLLECTED = "collected"
    ONCE = "once"
    UNKNOWN = "unknown"
    """A word of a newer systemd, or the job ended while the bus was away."""

    @classmethod
    def _missing_(cls, value: object) -> JobResult:
        return cls.UNKNOWN


class Systemd:
    """systemd as this process sees it, across restarts of dbus-daemon.

    `on_unit_change(unit, active_state, sub_state, result)` is called for every change of
    a unit that `watched` says yes to, and for each of them after every `connect`, because
    what happened before it may have been missed. `result` is that of a service
    (`success`, `exit-code`, `watchdog` …), "" where a unit has none.
    """

    def __init__(
        self,
        on_unit_change: OnUnitChange = lambda *_: None,
        watched: Callable[[str], bool] = lambda unit: unit.startswith("ha-"),
    ) -> None:
        self.on_unit_change = on_unit_change
        self._watched = watched
        self._bus: MessageBus | None = None
        self._announcements = 0
        self._results: dict[str, str] = {}
        self._told: dict[str, tuple[str, str]] = {}
        self._waiting: dict[JobPath, asyncio.Future[JobResult]] = {}
        self._ended: OrderedDict[JobPath, JobResult] = OrderedDict()

    async def connect(self, connection: MessageBus) -> None:
        """Subscribe on a new connection, and report where the watched units stand.

        To be called as `connected` of `haoperator.systemd.bus.Endpoint`.
        """
        self._bus = connection
        connection.add_message_handler(self._on_message)
        for rule in _MATCHES:
            await bus.watch(connection, rule)
        await self._ask(f"{_MANAGER}.Subscribe")
        await self._settle_jobs_that_ended_unseen()
        for name, (active, sub) in (await self._states()).items():
            self._told.pop(name, None)
            self._tell(name, active, sub, self._results.get(name, ""))

    async def _states(self) -> dict[str, tuple[str, str]]:
        """Where the watched units stand. Asked again when a change was announced meanwhile:
        a signal is handled when it arrives, an answer resumes us later and may be older."""
        patterns = [[], ["ha*", "*.mount"]]
        while True:
            before = self._announcements
            (listed,) = await self._ask(f"{_MANAGER}.ListUnitsByPatterns", "asas", patterns)
            states = {unit[0]: (unit[3], unit[4]) for unit in listed if self._watched(unit[0])}
            for name in states:
                await self._result_of(name)
            if before == self._announcements:
                return states

    async def start(self, unit: str, mode: str = "replace") -> JobPath:
        """Queue a start; returns when the job is queued. Raises SystemdError."""
        return await self._queue("start", unit, mode)

    async def stop(self, unit: str, mode: str = "replace") -> JobPath:
        """Queue a stop; returns when the job is queued. Raises SystemdError."""
        return await self._queue("stop", unit, mode)

    async def run_job(self, verb: str, unit: str, mode: str = "replace") -> JobResult:
        """Queue a job (`start`, `stop`, `restart`, `reload`) and wait for its end.

        Raises SystemdError if it could not be queued. Cancelling the wait leaves the job.
        """
        path = await self._queue(verb, unit, mode)
        if path in self._ended:
            return self._ended[path]
        ended = self._waiting.setdefault(path, asyncio.get_running_loop().create_future())
        # Shielded: another one may wait for the same job, which systemd merged with this.
        return await asyncio.shield(ended)

    async def reset_failed(self, unit: str) -> None:
        """Forget that a unit failed, and how often it was started. Raises SystemdError."""
        await call("ResetFailedUnit", "s", [unit])

    async def reload(self) -> None:
        """Run the generators and read all units again. Raises SystemdError."""
        await call("Reload")

    async def active_state(self, unit: str) -> str:
        """`active`, `activating`, `inactive`, `failed` … Raises SystemdError."""
        return str(await self._property(unit, _UNIT, "ActiveState"))

    async def is_leaving(self) -> bool:
        """Whether a stop of `ha-cluster.target` is queued: this node is on its way out.

        A role must not be started then: a role's target pulls in ha-cluster.target, so that
        starting it would take the stop back. Raises SystemdError.
        """
        job_id, path = await self._property(names.CLUSTER, _UNIT, "Job")
        if not job_id:
            return False
        try:
            kind = await self._get(path, "org.freedesktop.systemd1.Job", "JobType")
        except SystemdError:
            return False  # It ended in between.
        return bool(kind == "stop")

    async def _queue(self, verb: str, unit: str, mode: str) -> JobPath:
        path = await call(f"{verb.capitalize()}Unit", "ss", [unit, mode])
        if path is None:
            raise SystemdError(f"{verb} {unit}: no job was queued")
        return path

    def _on_message(self, message: Message) -> None:
        if message.message_type is not MessageType.SIGNAL:
            return
        if message.member == "JobRemoved" and message.interface == _MANAGER:
            _, path, _, result = message.body
            self._job_ended(path, JobResult(result))
        elif message.member == "PropertiesChanged" and message.path:
            unit = names.unit_of_bus_path(message.path)
            if unit is not None and self._watched(unit):
                self._announcements += 1
                self._unit_changed(unit, message.body[0], message.body[1])

    def _unit_changed(self, unit: str, interface: str, changed: dict[str, Variant]) -> None:
        # systemd sends the properties of the service first, those of the unit after them.
        if "Result" in changed and interface != _UNIT:
            self._results[unit] = str(changed["Result"].value)
        elif interface == _UNIT and "ActiveState" in changed:
            active, sub = changed["ActiveState"].value, changed["SubState"].value
            self._tell(unit, str(active), str(sub), self._results.get(unit, ""))

    def _tell(self, unit: str, active: str, sub: str, result: str) -> None:
        # systemd repeats the state whenever any other property changes, and a unit that
        # starts again is `failed` with the result `success` for a moment: no new failure.
        if self._told.get(unit) != (active, sub):
            self._told[unit] = (active, sub)
            self.on_unit_change(unit, active, sub, result)

    def _job_ended(self, path: JobPath, result: JobResult) -> None:
        self._ended[path] = result
        while len(self._ended) > _ENDED_JOBS_KEPT:
            self._ended.popitem(last=False)
        waiting = self._waiting.pop(path, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(result)

    async def _settle_jobs_that_ended_unseen(self) -> None:
        for path in list(self._waiting):
            try:
                await self._get(path, "org.freedesktop.systemd1.Job", "State")
            except SystemdError:
                self._job_ended(path, JobResult.UNKNOWN)

    async def _result_of(self, unit: str) -> str:
        if unit.endswith((".service", ".mount")):
            interface = f"{_NAME}.{unit.rpartition('.')[2].capitalize()}"
            self._results[unit] = str(await self._property(unit, interface, "Result"))
        return self._results.get(unit, "")

    async def _property(self, unit: str, interface: str, name: str) -> Any:
        return await self._get(names.bus_path(unit), interface, name)

    async def _get(self, path: str, interface: str, name: str) -> Any:
        body = await self._ask(f"{_PROPERTIES}.Get", "ss", [interface, name], path)
        return body[0].value

    async def _ask(
        self,
        member: str,
        signature: str = "",
        body: Sequence[object] = (),
        path: str = _MANAGER_PATH,
    ) -> list[Any]:
        try:
            return await bus.call(self._bus, _NAME, path, member, signature, body)
        except DBusError as err:
            raise SystemdError(f"{member}: {err.text}") from err
        except (OSError, EOFError) as err:
            raise SystemdError(f"{member}: {err or 'the system bus went away'}") from err
