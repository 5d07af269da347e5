# SPDX-License-Identifier: Apache-2.0
"""Who calls, and whether they may: polkit at the edge."""

from __future__ import annotations

from contextvars import ContextVar

from dbus_next import DBusError, Message, Variant
from dbus_next.aio import MessageBus

from haoperator.systemd.bus import call

DENIED = "org.freedesktop.DBus.Error.AccessDenied"

_ALLOW_INTERACTION = 1
"""polkit may ask for a password (CheckAuthorizationFlags)."""

_sender: ContextVar[str] = ContextVar("sender", default="")


def note_sender(message: Message) -> None:
    """A message handler for the bus: remembers the sender for the method that follows.

    dbus-next does not hand the message to a service method. It does start the method
    from within the handling of the message, so that a context variable reaches it.
    """
    _sender.set(message.sender or "")


async def require(bus: MessageBus | None, verb: str) -> None:
    """Raises DBusError AccessDenied unless root calls or polkit allows `verb`."""
    sender = _sender.get()
    if not sender:
        raise DBusError(DENIED, "the caller is not known")
    (uid,) = await call(
        bus,
        "org.freedesktop.DBus",
        "/org/freedesktop/DBus",
        "org.freedesktop.DBus.GetConnectionUnixUser",
        "s",
        [sender],
    )
    if uid == 0:
        return
    try:
        (answer,) = await call(
            bus,
            "org.freedesktop.PolicyKit1",
            "/org/freedesktop/PolicyKit1/Authority",
            "org.freedesktop.PolicyKit1.Authority.CheckAuthorization",
            "(sa{sv})sa{ss}us",
            [
                ["system-bus-name", {"name": Variant("s", sender)}],
                f"org.haoperator1.{verb}",
                {},
                _ALLOW_INTERACTION,
                "",
            ],
        )
    except DBusError as err:
        raise DBusError(
            DENIED, f"only root may do this: polkit does not answer ({err.text})"
        ) from err
    if not answer[0]:
        raise DBusError(DENIED, f"polkit does not allow org.haoperator1.{verb} for uid {uid}")
