# SPDX-License-Identifier: Apache-2.0
"""Before an address is taken: can it be used here, and does nobody else have it?

RFC 5227 asks for three probes within three to seven seconds. This is on the path of
every failover, so the question is put twice within a twentieth of a second instead: a
machine that is up answers within a millisecond or a few. What that misses is found
while the address is held (`haoperator.net.defence`).
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable

from haoperator.lean import interface, stop
from haoperator.lean.address_socket import AddressSocket

PROBES = 2
QUIET_SECONDS = 0.05
"""For how long nobody may answer them; the last of them has its full share. A takeover with
`detect = "300ms"` is to be over after 0.5 s."""
PATIENCE_SECONDS = 2.0
"""For somebody who has it: the former primary may be giving it back right now."""
LOST_SECONDS = 3.0
"""For an interface that cannot be used, before the address is taken and while it is held. A
port that negotiates its speed anew takes two or three; a failover costs that much too."""

_LOOK_SECONDS = 0.05


def await_interface(name: str) -> str:
    """Wait until frames can pass. What is wrong if they cannot in time, else `""`."""
    give_up = time.monotonic() + LOST_SECONDS
    while trouble := interface.trouble(name):
        if time.monotonic() > give_up or stop.held_back():
            return trouble
        time.sleep(_LOOK_SECONDS)
    return ""


def rival(sock: AddressSocket, meanwhile: Callable[[], None]) -> str:
    """The MAC address of another machine that has the address and keeps it, else `""`.

    `meanwhile` is done while the first answers are on their way. Raises OSError.
    """
    give_up = time.monotonic() + PATIENCE_SECONDS
    mac = _answer(sock, meanwhile)
    while mac and time.monotonic() < give_up and not stop.held_back():
        mac = _answer(sock)
    return mac.hex(":")


def _answer(sock: AddressSocket, meanwhile: Callable[[], None] | None = None) -> bytes:
    """Ask, and hear everybody who answers. The last of them, else `b""`."""
    mac = b""
    for number in range(PROBES):
        sock.probe()
        end = time.monotonic() + QUIET_SECONDS / PROBES
        if meanwhile is not None and number == 0:
            meanwhile()
        while select.select([sock], [], [], max(0.0, end - time.monotonic()))[0]:
            mac = [mac, *sock.claimants()][-1]
    return mac
