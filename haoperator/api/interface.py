# SPDX-License-Identifier: Apache-2.0
"""The objects behind `org.haoperator1`, as org.haoperator1.xml describes them."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from dbus_next.constants import PropertyAccess
from dbus_next.errors import DBusError
from dbus_next.service import ServiceInterface, dbus_property, method, signal

BUS_NAME = "org.haoperator1"
ROOT = "/org/haoperator1"
REFUSED = "org.haoperator1.Error.Refused"
NOT_SUPPORTED = "org.haoperator1.Error.NotSupported"


class Refused(Exception):
    """A verb was refused; the text is the reason, for an administrator."""


class Verbs(Protocol):
    """What the interface needs of the operator. Each raises `Refused` with the reason."""

    async def swap(self) -> None: ...

    async def promote(self, force: bool) -> None: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def set_maintenance(self, on_: bool) -> None: ...

    async def verify(self, repair: bool) -> None: ...

    async def yield_branch(self) -> None: ...

    async def open_gate(self) -> None: ...


Require = Callable[[str], Awaitable[None]]


async def _refusable(verb: Awaitable[None]) -> None:
    try:
        await verb
    except Refused as err:
        raise DBusError(REFUSED, str(err)) from err


class ClusterInterface(ServiceInterface):
    """`org.haoperator1.Cluster`. `announce` stores the levels and tells the bus."""

    def __init__(self, verbs: Verbs, require: Require) -> None:
        super().__init__("org.haoperator1.Cluster")
        self._verbs = verbs
        self._require = require
        self._levels: dict[str, object] = {
            "State": "WAIT",
            "Transition": "",
            "Role": "secondary",
            "NodeName": "",
            "PeerName": "",
            "PeerState": "UNKNOWN",
            "PeerReachable": False,
            "Generation": "",
            "Reason": "",
            "Report": "{}",
        }

    def announce(self, levels: dict[str, object]) -> None:
        """Store the levels; PropertiesChanged carries those that differ."""
        changed = {name: value for name, value in levels.items() if self._levels[name] != value}
        self._levels.update(changed)
        if changed:
            self.emit_properties_changed(changed)

    @method()
    async def Swap(self) -> None:
        await self._require("swap")
        await _refusable(self._verbs.swap())

    @method()
    async def Start(self) -> None:
        await self._require("start")
        await _refusable(self._verbs.start())

    @method()
    async def Stop(self) -> None:
        await self._require("stop")
        await _refusable(self._verbs.stop())

    @method()
    async def Promote(self, force: "b") -> None:
        await self._require("promote")
        await _refusable(self._verbs.promote(force))

    @method()
    async def Verify(self) -> None:
        await self._require("verify")
        await _refusable(self._verbs.verify(False))

    @method()
    async def Repair(self) -> None:
        await self._require("repair")
        await _refusable(self._verbs.verify(True))

    @method()
    async def Yield(self) -> None:
        await self._require("yield")
        await _refusable(self._verbs.yield_branch())

    @method()
    async def SetMaintenance(self, on: "b") -> None:
        await self._require("set-maintenance")
        await _refusable(self._verbs.set_maintenance(on))

    @method()
    async def Reload(self) -> None:
        raise DBusError(NOT_SUPPORTED, "reload is not supported yet: restart haoperator.service")

    @dbus_property(access=PropertyAccess.READ)
    def State(self) -> "s":
        return self._levels["State"]

    @dbus_property(access=PropertyAccess.READ)
    def Transition(self) -> "s":
        return self._levels["Transition"]

    @dbus_property(access=PropertyAccess.READ)
    def Role(self) -> "s":
        return self._levels["Role"]

    @dbus_property(access=PropertyAccess.READ)
    def NodeName(self) -> "s":
        return self._levels["NodeName"]

    @dbus_property(access=PropertyAccess.READ)
    def PeerName(self) -> "s":
        return self._levels["PeerName"]

    @dbus_property(access=PropertyAccess.READ)
    def PeerState(self) -> "s":
        return self._levels["PeerState"]

    @dbus_property(access=PropertyAccess.READ)
    def PeerReachable(self) -> "b":
        return self._levels["PeerReachable"]

    @dbus_property(access=PropertyAccess.READ)
    def Generation(self) -> "s":
        return self._levels["Generation"]

    @dbus_property(access=PropertyAccess.READ)
    def Reason(self) -> "s":
        return self._levels["Reason"]

    @dbus_property(access=PropertyAccess.READ)
    def Report(self) -> "s":
        return self._levels["Report"]

    @signal()
    def Transitioned(self, former: str, to: str, reason: str) -> "sss":
        return [former, to, reason]


class GateInterface(ServiceInterface):
    """`org.haoperator1.Gate`, for ha-promote.service. The bus policy lets root only."""

    def __init__(self, verbs: Verbs) -> None:
        super().__init__("org.haoperator1.Gate")
        self._verbs = verbs

    @method()
    async def Open(self) -> None:
        await _refusable(self._verbs.open_gate())


class PartInterface(ServiceInterface):
    """`org.haoperator1.Part`: one link, replica, VIP, application or checker."""

    def __init__(self, kind: str, name: str, unit: str) -> None:
        super().__init__("org.haoperator1.Part")
        self.kind, self.part, self.unit = kind, name, unit
        self._state = "unknown"

    @property
    def path(self) -> str:
        """D-Bus knows no `-` in paths; names that have one get `_2d`, as systemd does it."""
        element = "".join(c if c.isalnum() else f"_{ord(c):02x}" for c in self.part)
        return f"{ROOT}/{self.kind}/{element}"

    def announce(self, state: str) -> None:
        if state != self._state:
            self._state = state
            self.emit_properties_changed({"State": state})

    @dbus_property(access=PropertyAccess.READ)
    def Kind(self) -> "s":
        return self.kind

    @dbus_property(access=PropertyAccess.READ)
    def Name(self) -> "s":
        return self.part

    @dbus_property(access=PropertyAccess.READ)
    def State(self) -> "s":
        return self._state

    @dbus_property(access=PropertyAccess.READ)
    def Unit(self) -> "s":
        return self.unit
