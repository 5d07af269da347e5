# SPDX-License-Identifier: Apache-2.0
"""What follows from the states that systemd tells of checkers."""

from __future__ import annotations

import pytest

from haoperator.core import events as on
from haoperator.operator.units import Units
from haoperator.systemd import names
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


def test_checker_that_is_stopped_in_order_is_no_evidence() -> None:
    told = Told(gate="inactive")
    told(ROOM, "activating", "auto-restart", "exit-code")
    assert told(ROOM, "inactive", "dead") == [on.ReadinessChanged("")]
