# SPDX-License-Identifier: Apache-2.0
"""`org.haoperator1.Replicator`: what the operator asks of the data plane, and sees of it.

docs/architecture.md, section 4, says what each member promises.
"""

import asyncio
from collections.abc import Callable

from dbus_next.constants import PropertyAccess
from dbus_next.errors import DBusError
from dbus_next.service import ServiceInterface, dbus_property, method

from haoperator.replica.engine import Engine
from haoperator.replica.standing import Refused

BUS_NAME = "org.haoperator1.Replicator"
OBJECT_PATH = "/org/haoperator1/replicator"
REFUSED = "org.haoperator1.Error.Refused"
FAILED = "org.haoperator1.Error.Failed"


class ReplicatorInterface(ServiceInterface):
    """The engine on the bus. Its methods may wait, so they run in threads."""

    def __init__(self, engine: Engine) -> None:
        super().__init__("org.haoperator1.Replicator")
        self._engine = engine
        self._announced: dict[str, object] = {}

    def announce(self) -> None:
        """PropertiesChanged for those levels that changed since the last time."""
        levels: dict[str, object] = {
            "Record": self._engine.record.to_json(),
            "Role": self._engine.role.value,
            "Stream": self._engine.stream.value,
            "Heard": int(self._engine.heard * 1e6),
            "Directories": self._engine.directories_json(),
            "Verification": self._engine.verification_json,
            "Yielded": self._engine.yielded_json,
        }
        changed = {k: v for k, v in levels.items() if self._announced.get(k) != v}
        self._announced = levels
        if changed:
            self.emit_properties_changed(changed)

    async def _do(self, work: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(work)
        except Refused as err:
            raise DBusError(REFUSED, str(err)) from err
        except Exception as err:
            raise DBusError(FAILED, f"{type(err).__name__}: {err}") from err
        finally:
            self.announce()  # before the reply: who was answered sees what he asked for

    @method()
    async def BecomePrimary(self, generation: "s", force: "b", deadline_usec: "t") -> None:
        deadline = deadline_usec / 1e6
        await self._do(lambda: self._engine.become_primary(generation, deadline, force=force))

    @method()
    async def ContinueAlone(self, generation: "s", deadline_usec: "t") -> None:
        deadline = deadline_usec / 1e6
        await self._do(lambda: self._engine.continue_alone(generation, deadline))

    @method()
    async def BecomeSecondary(self) -> None:
        await self._do(self._engine.become_secondary)

    @method()
    async def MarkOutdated(self) -> None:
        await self._do(self._engine.mark_outdated)

    @method()
    async def YieldBranch(self, to: "s") -> None:
        await self._do(lambda: self._engine.yield_branch(to))

    @method()
    async def Verify(self, repair: "b") -> None:
        await self._do(lambda: self._engine.verify(repair=repair))

    @dbus_property(access=PropertyAccess.READ)
    def Record(self) -> "s":
        return self._engine.record.to_json()

    @dbus_property(access=PropertyAccess.READ)
    def Role(self) -> "s":
        return self._engine.role.value

    @dbus_property(access=PropertyAccess.READ)
    def Stream(self) -> "s":
        return self._engine.stream.value

    @dbus_property(access=PropertyAccess.READ)
    def Heard(self) -> "t":
        return int(self._engine.heard * 1e6)

    @dbus_property(access=PropertyAccess.READ)
    def Directories(self) -> "s":
        return self._engine.directories_json()

    @dbus_property(access=PropertyAccess.READ)
    def Verification(self) -> "s":
        return self._engine.verification_json

    @dbus_property(access=PropertyAccess.READ)
    def Yielded(self) -> "s":
        return self._engine.yielded_json
