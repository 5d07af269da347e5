# SPDX-License-Identifier: Apache-2.0
"""The heartbeat daemon and the replicator, as the operator sees them on the bus.

Both publish levels. A client here turns a change of them into events for the core,
and reads them anew whenever there is reason to doubt that a signal was seen: at each
new connection to the bus, and when the daemon's name appears.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from dbus_next import DBusError, Message, MessageType
from dbus_next.aio import MessageBus

from haoperator.core import effects as do
from haoperator.core import events as on
from haoperator.core.record import DataRecord
from haoperator.core.status import Phase, Role, Status, Stream
from haoperator.systemd.bus import call, properties, watch

STATUS_LIFETIME_SECONDS = 5.0
"""How long the peer hears a status that is not repeated: several times SIGN_OF_LIFE_SECONDS, and
longer than a restart of the operator takes, which disturbs nothing."""
SIGN_OF_LIFE_SECONDS = 1.0
"""How often the operator repeats its status, because its core takes steps."""

log = logging.getLogger(__name__)

Post = Callable[[on.Event], None]


class Neighbour:
    """One daemon of this node: its name, object and interface, and its levels."""

    name: str
    path: str

    def __init__(self, post: Post) -> None:
        self.levels: dict[str, Any] = {}
        self._post = post
        self._bus: MessageBus | None = None
        self._owner = ""
        self._announcements = 0

    async def connect(self, bus: MessageBus) -> None:
        """Subscribe on a new connection to the bus, then read the levels."""
        self._bus, self._owner = bus, ""
        bus.add_message_handler(self._handle)
        await watch(bus, f"type='signal',sender='{self.name}',path='{self.path}'")
        await watch(
            bus,
            "type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',"
            f"arg0='{self.name}'",
        )
        try:
            (owner,) = await call(
                bus,
                "org.freedesktop.DBus",
                "/org/freedesktop/DBus",
                "org.freedesktop.DBus.GetNameOwner",
                "s",
                [self.name],
            )
        except DBusError:
            return
        # Unless a newer owner was announced behind that answer.
        self._owner = self._owner or owner
        await self.refresh()

    async def refresh(self) -> None:
        """Read all levels now. A daemon that does not answer is left to NameOwnerChanged.

        The answer is taken only if no change was announced while it was under way: a signal
        is handled when it arrives, but an answer resumes us a moment later, and may be older
        than a signal that came right behind it.
        """
        try:
            while True:
                before = self._announcements
                levels = await properties(self._bus, self.name, self.path, self.name)
                if before == self._announcements:
                    break
        except (DBusError, ConnectionError) as err:
            log.info("%s does not answer: %s", self.name, err)
            return
        self.levels = levels
        self.changed(set(levels))

    def changed(self, names: set[str]) -> None:
        """The levels that `names` names are new."""
        raise NotImplementedError

    def appeared(self) -> None:
        """The daemon came (back) to the bus; its levels are read next."""

    def vanished(self) -> None:
        """The daemon left the bus."""

    def _handle(self, message: Message) -> bool | None:
        if message.message_type is not MessageType.SIGNAL:
            return None
        if message.member == "NameOwnerChanged" and message.body[0] == self.name:
            self._owner = message.body[2]
            if self._owner:
                self.appeared()
            else:
                self.vanished()
        elif (message.sender, message.path) == (self._owner, self.path):
            self._from_daemon(message)
        return None

    def _from_daemon(self, message: Message) -> None:
        if message.member == "PropertiesChanged":
            self._announcements += 1
            new = {name: variant.value for name, variant in message.body[1].items()}
            self.levels.update(new)
            self.changed(set(new))


class Heartbeat(Neighbour):
    """What is heard of the peer, and of the witness."""

    name = "org.haoperator1.Heartbeat"
    path = "/org/haoperator1/heartbeat"

    def __init__(self, post: Post, returned: Callable[[], None]) -> None:
        super().__init__(post)
        self._returned = returned

    async def publish(self, status: Status) -> None:
        """Let the peer hear `status` for STATUS_LIFETIME_SECONDS; a departure to the very end.

        Raises DBusError or ConnectionError.
        """
        lifetime = 0 if status.phase is Phase.LEAVING else STATUS_LIFETIME_SECONDS
        body = [status.to_json(), int(lifetime * 1e6)]
        await call(self._bus, self.name, self.path, f"{self.name}.Publish", "st", body)

    async def confirms(self, witness: on.Witness, probe: on.Probe, patience: float) -> bool:
        """Whether the peer is silent still, beside this evidence: asked anew, and False without
        an answer within `patience` seconds. What was announced before may be of any age, if
        this process or the daemon stood still in between."""
        try:
            async with asyncio.timeout(patience):
                levels = await properties(self._bus, self.name, self.path, self.name)
        except (DBusError, ConnectionError, TimeoutError) as err:
            log.warning("the silence of the peer is not confirmed: %s", err or "no answer")
            return False
        told = (levels["PeerIsSilent"], levels["Witness"], levels.get("VipProbe", on.Probe.NONE))
        if told == (True, witness, probe):
            return True
        log.info("the evidence has changed: silent, witness, virtual IPs are %s now", told)
        await self.refresh()
        return False

    def changed(self, names: set[str]) -> None:
        if "Witness" in names:
            self._post(on.WitnessChanged(on.Witness(self.levels["Witness"])))
        if "VipProbe" in names:
            self._post(on.VipProbed(on.Probe(self.levels["VipProbe"])))
        if self.levels.get("PeerIsSilent"):
            self._post(on.PeerLost())
        elif names & {"PeerReachable", "PeerStatus"} and self.levels.get("PeerReachable"):
            self._heard(self.levels.get("PeerStatus", ""))

    def appeared(self) -> None:
        self._returned()

    def _heard(self, text: str) -> None:
        if not text:
            self._post(on.PeerFelt())
            return
        try:
            self._post(on.PeerHeard(Status.from_json(text)))
        except ValueError as err:
            log.warning("the peer's status is not understood: %s", err)
            self._post(on.PeerFelt())


class Replicator(Neighbour):
    """The data plane: its levels, and the commands to it."""

    name = "org.haoperator1.Replicator"
    path = "/org/haoperator1/replicator"

    def __init__(self, post: Post, returned: Callable[[], None]) -> None:
        super().__init__(post)
        self._returned = returned

    def changed(self, names: set[str]) -> None:
        if not names & {"Role", "Stream", "Record", "Heard"}:
            return
        try:
            event = on.ReplicaChanged(
                Role(self.levels["Role"]),
                Stream(self.levels["Stream"]),
                DataRecord.from_json(self.levels["Record"]),
                int(self.levels.get("Heard", 0)) / 1e6,
            )
        except (KeyError, ValueError) as err:
            log.error("the replicator's levels are not understood: %s", err)
            return
        self._post(event)

    def appeared(self) -> None:
        self._returned()

    def vanished(self) -> None:
        self.levels = {}
        self._post(on.ReplicaGone())

    async def verify(self, repair: bool) -> None:
        """Begin to compare both copies; the level `Verification` tells the rest.

        Raises DBusError or ConnectionError.
        """
        await self._call("Verify", "b", [repair])
        await self.refresh()

    async def carry_out(self, command: do.Effect, deadline_usec: int) -> None:
        """Send one command and post how it went; the levels that result come first."""
        try:
            match command:
                case do.BecomePrimary(generation, force):
                    await self._call("BecomePrimary", "sbt", [generation, force, deadline_usec])
                case do.ContinueAlone(generation):
                    await self._call("ContinueAlone", "st", [generation, deadline_usec])
                case do.BecomeSecondary():
                    await self._call("BecomeSecondary")
                case do.MarkOutdated():
                    await self._call("MarkOutdated")
                case do.YieldBranch(to):
                    await self._call("YieldBranch", "s", [to])
                case _:
                    raise AssertionError(f"no command to the replicator: {command}")
        except (DBusError, ConnectionError) as err:
            text = err.text if isinstance(err, DBusError) else str(err)
            log.warning("replicator: %s failed: %s", type(command).__name__, text)
            await self.refresh()
            self._post(on.ReplicaFailed(text))
            return
        await self.refresh()
        self._post(on.ReplicaDone())

    async def _call(
        self, member: str, signature: str = "", body: tuple[Any, ...] | list[Any] = ()
    ) -> None:
        await call(self._bus, self.name, self.path, f"{self.name}.{member}", signature, body)
