# SPDX-License-Identifier: Apache-2.0
"""Jobs and unit states, against a connection that plays systemd's signals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from dbus_next import Message, MessageType, Variant

from haoperator.systemd import jobs, names
from haoperator.systemd.jobs import JobResult, Systemd, SystemdError

MANAGER = "/org/freedesktop/systemd1"
WEB = names.app("web")


class Connection:
    """Answers what `Systemd` asks; `properties` maps (path, name) to a value."""

    connected = True

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.units: list[list[Any]] = []
        self.properties: dict[tuple[str, str], Any] = {}
        self.deliver: Callable[[Message], Any] = lambda message: None

    def add_message_handler(self, handler: Callable[[Message], Any]) -> None:
        self.deliver = handler

    async def call(self, message: Message) -> Message:
        self.asked.append(message.member)
        message.serial = 1
        message.sender = ":1.1"
        if message.member == "ListUnitsByPatterns":
            return Message.new_method_return(message, "a(ssssssouso)", [self.units])
        if message.member == "Get":
            value = self.properties.get((message.path, message.body[1]))
            if value is None:
                return Message.new_error(message, "org.x.Unknown", f"no {message.path}")
            return Message.new_method_return(message, "v", [Variant("s", value)])
        return Message.new_method_return(message)

    def signal(self, path: str, interface: str, member: str, body: list[Any]) -> None:
        message = Message(
            message_type=MessageType.SIGNAL, path=path, interface=interface, member=member
        )
        message.body = body
        self.deliver(message)

    def job_removed(self, job: int, result: str) -> None:
        body = [job, f"{MANAGER}/job/{job}", WEB, result]
        self.signal(MANAGER, f"{MANAGER[1:].replace('/', '.')}.Manager", "JobRemoved", body)

    def changed(self, unit: str, interface: str, **values: str) -> None:
        body = [interface, {name: Variant("s", value) for name, value in values.items()}, []]
        properties = "org.freedesktop.DBus.Properties"
        self.signal(names.bus_path(unit), properties, "PropertiesChanged", body)


@pytest.fixture
def queued(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What would have gone to systemd through pystemd; the job is always number 7."""
    calls: list[tuple[str, ...]] = []

    async def call(method: str, signature: str = "", arguments: Any = ()) -> str:
        calls.append((method, *arguments))
        return f"{MANAGER}/job/7"

    monkeypatch.setattr(jobs, "call", call)
    return calls


def test_job_is_waited_for_until_its_end(queued: list[tuple[str, ...]]) -> None:
    async def scenario() -> None:
        systemd, connection = Systemd(), Connection()
        await systemd.connect(connection)  # type: ignore[arg-type]
        assert connection.asked[:3] == ["AddMatch", "AddMatch", "Subscribe"]
        running = asyncio.create_task(systemd.run_job("start", WEB))
        await asyncio.sleep(0)
        connection.job_removed(6, "done")
        assert not running.done()
        connection.job_removed(7, "dependency")
        assert await running is JobResult.DEPENDENCY
        assert queued == [("StartUnit", WEB, "replace")]

    asyncio.run(scenario())


def test_end_that_comes_before_the_answer_is_not_missed(queued: list[tuple[str, ...]]) -> None:
    async def scenario() -> None:
        systemd, connection = Systemd(), Connection()
        await systemd.connect(connection)  # type: ignore[arg-type]
        connection.job_removed(7, "a-word-of-the-future")
        assert await systemd.run_job("restart", WEB, "fail") is JobResult.UNKNOWN
        assert queued == [("RestartUnit", WEB, "fail")]

    asyncio.run(scenario())


def test_two_may_wait_for_one_merged_job(queued: list[tuple[str, ...]]) -> None:
    async def scenario() -> None:
        systemd, connection = Systemd(), Connection()
        await systemd.connect(connection)  # type: ignore[arg-type]
        first, second = (asyncio.create_task(systemd.run_job("start", WEB)) for _ in "ab")
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        connection.job_removed(7, "done")
        assert await second is JobResult.DONE
        assert len(queued) == 2

    asyncio.run(scenario())


def test_job_that_ended_while_the_bus_was_away_is_settled(queued: list[tuple[str, ...]]) -> None:
    async def scenario() -> None:
        systemd = Systemd()
        await systemd.connect(Connection())  # type: ignore[arg-type]
        running = asyncio.create_task(systemd.run_job("start", WEB))
        await asyncio.sleep(0)
        still_there = Connection()
        still_there.properties[f"{MANAGER}/job/7", "State"] = "running"
        await systemd.connect(still_there)  # type: ignore[arg-type]
        assert not running.done()
        await systemd.connect(Connection())  # type: ignore[arg-type]
        assert await running is JobResult.UNKNOWN

    asyncio.run(scenario())


def test_changes_of_watched_units_are_told_once_with_their_result() -> None:
    told: list[tuple[str, ...]] = []

    async def scenario() -> None:
        systemd, connection = Systemd(lambda *change: told.append(change)), Connection()
        await systemd.connect(connection)  # type: ignore[arg-type]
        service, unit = "org.freedesktop.systemd1.Service", "org.freedesktop.systemd1.Unit"
        connection.changed(WEB, service, Result="watchdog")
        connection.changed(WEB, unit, ActiveState="failed", SubState="failed")
        connection.changed(WEB, service, Result="success")
        connection.changed(WEB, unit, ActiveState="failed", SubState="failed")
        connection.changed(WEB, unit, ActiveState="activating", SubState="start")
        connection.changed("cron.service", unit, ActiveState="failed", SubState="failed")
        connection.changed(WEB, unit, Description="no state in it")

    asyncio.run(scenario())
    assert told == [
        (WEB, "failed", "failed", "watchdog"),
        (WEB, "activating", "start", "success"),
    ]


def test_every_connection_begins_with_where_the_units_stand() -> None:
    told: list[tuple[str, ...]] = []

    async def scenario() -> None:
        systemd, connection = Systemd(lambda *change: told.append(change)), Connection()
        row = ["", "loaded", "active", "running", "", "/", 0, "", "/"]
        connection.units = [[WEB, *row], ["home.mount", *row]]
        connection.properties[names.bus_path(WEB), "Result"] = "success"
        await systemd.connect(connection)  # type: ignore[arg-type]
        await systemd.connect(connection)  # type: ignore[arg-type]

    asyncio.run(scenario())
    assert told == [(WEB, "active", "running", "success")] * 2


def test_without_a_bus_a_question_fails_and_does_not_hang() -> None:
    with pytest.raises(SystemdError):
        asyncio.run(Systemd().active_state(WEB))
