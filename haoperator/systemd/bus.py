# SPDX-License-Identifier: Apache-2.0
"""A place on the system bus that outlives a restart of dbus-daemon."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from dbus_next import BusType, DBusError, Message, MessageType
from dbus_next.aio import MessageBus
from dbus_next.constants import NameFlag, RequestNameReply
from dbus_next.service import ServiceInterface

RETRY_SECONDS = 0.2

log = logging.getLogger(__name__)

Connected = Callable[[MessageBus], Awaitable[None]]


class NameTaken(RuntimeError):
    """Another process owns the bus name: a second instance must not run."""


def _pass_over_answered_errors(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """dbus-next answers a method that raised DBusError, and then lets the same error escape
    into the loop. The caller has it; the journal need not."""
    if not isinstance(context.get("exception"), DBusError):
        loop.default_exception_handler(context)


class Endpoint:
    """Objects served under one well-known name, on whatever bus connection there is.

    `run` connects, exports, takes the name, calls `connected` (where a client part
    subscribes), and begins again when the connection ends. `bus` is the present
    connection, None between two of them; calls made then fail and are retried by
    those who made them, because everything that is published is a level.
    """

    def __init__(
        self,
        name: str,
        exports: Mapping[str, Sequence[ServiceInterface]],
        connected: Connected | None = None,
    ) -> None:
        self.name = name
        self.bus: MessageBus | None = None
        self._exports = exports
        self._connected = connected

    async def run(self) -> None:
        """Serve for ever. Raises `NameTaken` if another instance runs."""
        asyncio.get_running_loop().set_exception_handler(_pass_over_answered_errors)
        while True:
            try:
                await self._serve_one_connection()
            except (OSError, EOFError, asyncio.IncompleteReadError) as err:
                log.warning("system bus not reachable, trying again: %s", err or type(err).__name__)
            await asyncio.sleep(RETRY_SECONDS)

    async def _serve_one_connection(self) -> None:
        bus = await MessageBus(bus_type=BusType.SYSTEM, negotiate_unix_fd=True).connect()
        try:
            for path, interfaces in self._exports.items():
                for interface in interfaces:
                    bus.export(path, interface)
            reply = await bus.request_name(self.name, NameFlag.DO_NOT_QUEUE)
            if reply not in (RequestNameReply.PRIMARY_OWNER, RequestNameReply.ALREADY_OWNER):
                raise NameTaken(f"{self.name} is owned by another process")
            self.bus = bus
            if self._connected is not None:
                await self._connected(bus)
            await bus.wait_for_disconnect()
        finally:
            self.bus = None
            for path, interfaces in self._exports.items():
                for interface in interfaces:
                    with contextlib.suppress(Exception):
                        bus.unexport(path, interface)
            with contextlib.suppress(Exception):
                bus.disconnect()


async def call(
    bus: MessageBus | None,
    destination: str,
    path: str,
    member: str,
    signature: str = "",
    body: Sequence[object] = (),
) -> list[Any]:
    """Call `INTERFACE.MEMBER` (given as one dotted name) and return what it returns.

    Raises DBusError for an error reply, ConnectionError if there is no bus at present.
    """
    if bus is None:
        raise ConnectionError("the system bus is not reachable at present")
    interface, _, name = member.rpartition(".")
    message = Message(
        destination=destination,
        path=path,
        interface=interface,
        member=name,
        signature=signature,
        body=list(body),
    )
    reply = await bus.call(message)
    if reply is None:
        raise ConnectionError("the system bus went away during a call")
    if reply.message_type is MessageType.ERROR:
        raise DBusError(reply.error_name, str(reply.body[0]) if reply.body else "", reply)
    return list(reply.body)


async def properties(
    bus: MessageBus | None, destination: str, path: str, interface: str
) -> dict[str, Any]:
    """All properties of one interface, without their variants. Raises as `call`."""
    (values,) = await call(
        bus, destination, path, "org.freedesktop.DBus.Properties.GetAll", "s", [interface]
    )
    return {name: variant.value for name, variant in values.items()}


async def watch(bus: MessageBus, rule: str) -> None:
    """Ask the bus daemon for the signals that match `rule`."""
    await call(
        bus,
        "org.freedesktop.DBus",
        "/org/freedesktop/DBus",
        "org.freedesktop.DBus.AddMatch",
        "s",
        [rule],
    )
