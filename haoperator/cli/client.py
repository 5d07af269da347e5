# SPDX-License-Identifier: Apache-2.0
"""Talking to the operator of this node over D-Bus."""

from __future__ import annotations

import json
from typing import Any

from dbus_next import BusType, DBusError
from dbus_next.aio import MessageBus

from haoperator.systemd.bus import call, properties

OPERATOR = "org.haoperator1"
OBJECT = "/org/haoperator1"
CLUSTER = "org.haoperator1.Cluster"
SYSTEMD = "org.freedesktop.systemd1"
_CLUSTER_TARGET = "ha-cluster.target"

_ABSENT = (
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
)


class Failed(Exception):
    """What was asked for can't be done; the text says why and what to do."""


class OperatorAbsent(Failed):
    """No operator runs on this node."""


async def connect() -> MessageBus:
    """Raises Failed if there is no system bus."""
    try:
        return await MessageBus(bus_type=BusType.SYSTEM).connect()
    except OSError as err:
        raise Failed(f"the system bus is not reachable: {err}") from err


async def fetch_report(bus: MessageBus) -> dict[str, Any]:
    """The operator's report. Raises OperatorAbsent if none runs."""
    (value,) = await _ask(bus, "org.freedesktop.DBus.Properties.Get", "ss", [CLUSTER, "Report"])
    document: dict[str, Any] = json.loads(value.value)
    return document


async def fetch_evidence(bus: MessageBus) -> dict[str, Any]:
    """What the heartbeat daemon heard last, and how long ago: `links`, `witnesses`, `vips`.
    Empty where it does not run, or does not tell (it tells root)."""
    get = ["org.haoperator1.Heartbeat", "Evidence"]
    try:
        (value,) = await call(
            bus,
            "org.haoperator1.Heartbeat",
            "/org/haoperator1/heartbeat",
            "org.freedesktop.DBus.Properties.Get",
            "ss",
            get,
        )
    except DBusError:
        return {}
    document: dict[str, Any] = json.loads(value.value)
    return document


async def command(bus: MessageBus, verb: str, signature: str = "", *body: object) -> None:
    """One verb of the operator. Raises Failed with its reason."""
    await _ask(bus, f"{CLUSTER}.{verb}", signature, list(body))


async def start_cluster(bus: MessageBus) -> None:
    """Start ha-cluster.target through systemd; needs no operator."""
    try:
        await call(
            bus,
            SYSTEMD,
            "/org/freedesktop/systemd1",
            "org.freedesktop.systemd1.Manager.StartUnit",
            "ss",
            [_CLUSTER_TARGET, "replace"],
        )
    except DBusError as err:
        raise Failed(err.text) from err


async def takes_part(bus: MessageBus) -> bool:
    """Whether ha-cluster.target is active here: then an operator that is absent is on its way."""
    manager = "org.freedesktop.systemd1.Manager"
    try:
        (unit,) = await call(
            bus, SYSTEMD, "/org/freedesktop/systemd1", f"{manager}.GetUnit", "s", [_CLUSTER_TARGET]
        )
        levels = await properties(bus, SYSTEMD, unit, "org.freedesktop.systemd1.Unit")
    except DBusError:
        return False
    return bool(levels["ActiveState"] == "active")


async def _ask(bus: MessageBus, member: str, signature: str, body: list[object]) -> list[Any]:
    try:
        return await call(bus, OPERATOR, OBJECT, member, signature, body)
    except DBusError as err:
        if err.type in _ABSENT:
            raise OperatorAbsent(
                "the operator does not run on this node: 'hactl start', "
                "or look at 'systemctl status haoperator'"
            ) from err
        raise Failed(err.text) from err
