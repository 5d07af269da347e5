# SPDX-License-Identifier: Apache-2.0
"""Calls of systemd's manager through pystemd (org.freedesktop.systemd1(5)).

pystemd blocks, so each call runs in a thread, on a connection of its own: a
connection that was kept would be dead after a restart of dbus-daemon.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence

from pystemd.dbusexc import DBusBaseError
from pystemd.dbuslib import DBus, apply_signature

_PYSTEMD_TEXT = re.compile(r"""\[err -?\d+\]: b(['"])(.*)\1""", re.DOTALL)

_NAME = b"org.freedesktop.systemd1"
_MANAGER_PATH = b"/org/freedesktop/systemd1"
_MANAGER = b"org.freedesktop.systemd1.Manager"


class SystemdError(RuntimeError):
    """systemd refused a call, or could not be reached; the text is its own."""


async def call(method: str, signature: str = "", arguments: Sequence[str] = ()) -> str | None:
    """Call a method of the manager; its answer, if that is a string or an object path.

    Raises SystemdError.
    """
    return await asyncio.to_thread(_call, method, signature, arguments)


def _call(method: str, signature: str, arguments: Sequence[str]) -> str | None:
    encoded = [argument.encode() for argument in arguments]
    try:
        with DBus() as bus:
            reply = bus.call_method(
                _NAME,
                _MANAGER_PATH,
                _MANAGER,
                method.encode(),
                apply_signature(signature.encode(), encoded) if signature else [],
            )
            body = reply.body
    except (DBusBaseError, OSError) as err:
        raise SystemdError(f"{method} {' '.join(arguments)}: {_reason(err)}") from err
    return body.decode() if isinstance(body, bytes) else None


def _reason(err: Exception) -> str:
    """What systemd said, out of pystemd's `[err -2]: b'Unit x.service not found.'`."""
    text = str(err) or type(err).__name__
    match = _PYSTEMD_TEXT.fullmatch(text)
    return match[2] if match else text
