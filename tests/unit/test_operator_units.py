# SPDX-License-Identifier: Apache-2.0
"""What follows from the states that systemd tells, and which jobs it is given."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from haoperator.core import events as on
from haoperator.operator.units import Units
from haoperator.systemd import names
from haoperator.systemd.jobs import JobResult, Systemd
from tests.unit.test_tomlconfig_load import BASE, parse

CONFIG = (
    BASE
    + """
[checker.room]
disk = "/srv"
on_failure = "failover"
[checker.router]
ping = "10.0.0.254"
on_failure = "failover"
"""
)
ROOM, ROUTER = names.checker("room"), names.checker("router")


class Told:
    """systemd tells of units; the events that the core gets for it."""

    def __init__(self, gate: str) -> None:
        self.events: list[on.Event] = []
        self._units = Units(parse(CONFIG), self.events.append, lambda: None)
        self(names.PROMOTE, gate, "exited")
        self.events.clear()

    def __call__(self, unit: str, active: str, sub: str, result: str = "") -> list[on.Event]:
        self.events.clear()
        self._units._systemd.on_unit_change(unit, active, sub, result)
        return list(self.events)


def test_standby_is_not_ready_from_a_failure_until_the_checker_is_active_again() -> None:
    told = Told(gate="inactive")
    assert told(ROOM, "activating", "start") == []
    assert told(ROOM, "active", "running") == []
    problem = "checker room failed"
    assert told(ROOM, "activating", "auto-restart", "exit-code") == [on.ReadinessChanged(problem)]
    assert told(ROOM, "activating", "start") == []
    assert told(ROOM, "activating", "auto-restart", "exit-code") == []
    assert told(ROOM, "active", "running") == [on.ReadinessChanged("")]


def test_primary_acts_and_says_that_it_is_not_ready() -> None:
    told = Told(gate="active")
    assert told(ROOM, "activating", "auto-restart", "watchdog") == [
        on.ReadinessChanged("checker room failed"),
        on.AppGaveUp(ROOM),
    ]


@pytest.mark.parametrize("sub", ["auto-restart", "running"])
def test_checker_of_the_primary_alone_says_nothing_of_readiness(sub: str) -> None:
    told = Told(gate="active")
    events = told(ROUTER, "activating", sub, "exit-code")
    assert events == ([on.AppGaveUp(ROUTER)] if sub == "auto-restart" else [])


@pytest.mark.parametrize(("then", "ready"), [("inactive", True), ("activating", False)])
def test_checker_that_is_stopped_by_hand_is_no_evidence_and_one_that_restarts_is(
    monkeypatch: pytest.MonkeyPatch, then: str, ready: bool
) -> None:
    async def asked(_systemd: Systemd, _unit: str) -> str:
        return then

    monkeypatch.setattr(Systemd, "active_state", asked)

    async def story() -> list[on.Event]:
        told = Told(gate="inactive")
        told(ROOM, "activating", "auto-restart", "exit-code")
        assert told(ROOM, "inactive", "dead") == []
        await asyncio.sleep(0)
        return told.events

    assert asyncio.run(story()) == ([on.ReadinessChanged("")] if ready else [])


class Jobs:
    """Takes the place of systemd: notes what is started."""

    def __init__(self) -> None:
        self.started: list[str] = []

    async def is_leaving(self) -> bool:
        return False

    async def run_job(self, verb: str, unit: str) -> JobResult:
        assert verb == "start"
        self.started.append(unit)
        return JobResult.DONE


class Roles:
    """Starts of roles, while the gate is where a test says."""

    def __init__(self, gate: str) -> None:
        self._units = Units(parse(CONFIG), lambda event: None, lambda: None)
        self._tell = self._units._systemd.on_unit_change
        self.jobs = Jobs()
        self._units._systemd = self.jobs  # type: ignore[assignment]
        self.gate(gate)

    def gate(self, active: str) -> None:
        self._tell(names.PROMOTE, active, "", "")

    def start(self, target: str) -> Awaitable[None]:
        return asyncio.ensure_future(self._units.start_role(target))


async def turns_of_the_loop() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize("gate", ["inactive", "failed"])
def test_primary_role_is_started_at_once_behind_a_closed_gate(gate: str) -> None:
    async def story() -> None:
        roles = Roles(gate)
        await roles.start(names.PRIMARY)
        assert roles.jobs.started == [names.PRIMARY]

    asyncio.run(story())


def test_primary_role_is_started_anew_when_the_gate_that_was_refused_is_down() -> None:
    """Before that, systemd would merge the start with the one that is failing."""

    async def story() -> None:
        roles = Roles("activating")
        started = roles.start(names.PRIMARY)
        for gate in ("activating", "deactivating"):
            roles.gate(gate)
            await turns_of_the_loop()
            assert roles.jobs.started == []
        roles.gate("failed")
        await started
        assert roles.jobs.started == [names.PRIMARY]

    asyncio.run(story())


def test_start_that_waits_for_the_gate_is_taken_back_by_the_other_role() -> None:
    async def story() -> None:
        roles = Roles("activating")
        started = roles.start(names.PRIMARY)
        await turns_of_the_loop()
        await roles.start(names.SECONDARY)
        roles.gate("failed")
        await started
        assert roles.jobs.started == [names.SECONDARY]

    asyncio.run(story())
