# SPDX-License-Identifier: Apache-2.0
"""`ha-vip NAME`: take a virtual IP and keep it. `ha-vip --remove NAME`: be sure it is gone."""

from __future__ import annotations

import os
import sys

from haoperator.lean import process, stop, trace
from haoperator.lean.address_socket import AddressSocket
from haoperator.lean.configuration import (
    CONFIGURATION,
    EXIT_MISCONFIGURED,
    EXIT_UNAVAILABLE,
    VIP_VARIABLE,
)
from haoperator.lean.notify import error, info, tell, warn
from haoperator.net import address, vacancy
from haoperator.net.presence import present
from haoperator.net.vip import TRACE, Vip


def take(name: str) -> int:
    """Add, announce, tell systemd, and become the keeper. Returns only if it failed."""
    stop.hold_back()  # a stop that comes now is the keeper's to carry out
    try:
        wanted = _configured(name)
        # The trace comes first, so that an address that is there can always be found.
        _leave_trace(wanted)
        refusal = _take(wanted)
    except LookupError as err:
        error(str(err))
        return EXIT_MISCONFIGURED
    except address.AddressError as err:
        error(str(err))
        return 1
    except OSError as err:
        refusal = f"{wanted.interface}: {err.strerror}"
    if refusal:
        error(f"VIP {wanted}: not taken: {refusal}")
        return EXIT_UNAVAILABLE
    process.become("haoperator.net.keeper", wanted.arguments)


def _take(wanted: Vip) -> str:
    """Why the address cannot be had here now, `""` if it is, or a stop was requested."""
    trouble = vacancy.await_interface(wanted.interface)
    if trouble or stop.held_back():
        return "" if stop.held_back() else trouble
    with AddressSocket(wanted.interface, wanted.packed) as sock:
        if not present(wanted):
            other = vacancy.rival(sock, address.load)
            if stop.held_back():
                return ""
            if other:
                return f"{other} has this address"
        added = address.add(wanted)
        try:
            sock.announce()
        except OSError as err:
            warn(f"VIP {wanted}: cannot be announced: {err.strerror}; it is on the interface")
    tell("READY=1", f"STATUS={wanted.address} on {wanted.interface}")
    info(f"VIP {wanted}: " + ("taken" if added else "was there already, kept"))
    return ""


def remove(name: str) -> int:
    """For `ExecStopPost=`: whatever ended the unit, the address is gone afterwards."""
    if trace.ended_in_order():
        return 0
    try:
        fields = trace.find(TRACE, name)
        left = Vip.parse(fields) if fields else _configured(name)
        if address.release(left):
            warn(f"VIP {left}: was left behind, removed")
        trace.remove(TRACE, name)
    except (address.AddressError, LookupError, OSError, ValueError) as err:
        error(str(err))
        return 1
    return 0


def _leave_trace(wanted: Vip) -> None:
    try:
        trace.leave(TRACE, wanted.name, wanted.arguments)
    except OSError as err:
        # Not worth an outage: without it, the configuration tells what to remove.
        warn(f"VIP {wanted}: no trace in {trace.RUN}: {err.strerror}")


def _configured(name: str) -> Vip:
    """From the unit's environment, or by hand from the file. Raises LookupError with what is
    wrong."""
    if fields := os.environ.get(VIP_VARIABLE):
        return Vip.parse([name, *fields.split()])
    from tomlconfig import ConfigError, load

    try:
        config = load(CONFIGURATION)
    except ConfigError as err:
        raise LookupError(str(err)) from err
    for entry in config.vips:
        if entry.name == name:
            interface = entry.address
            return Vip(name, str(interface.ip), interface.network.prefixlen, entry.interface)
    raise LookupError(f"{CONFIGURATION}: there is no [vip.{name}]")


def main() -> int:
    match sys.argv[1:]:
        case ["--remove", name]:
            return remove(name)
        case [name] if not name.startswith("-"):
            return take(name)
        case _:
            error("usage: ha-vip NAME | ha-vip --remove NAME")
            return 2


if __name__ == "__main__":
    sys.exit(main())
