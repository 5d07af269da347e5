# SPDX-License-Identifier: Apache-2.0
"""Adding and removing an address by pyroute2, in processes that end soon after.

`import pyroute2` loads all of its subsystems by entry points: 220 ms and 35 MB here.
What an address needs is one socket class and one message: 70 ms and 16 MB, if the
package's own `__init__` does not run.
"""

from __future__ import annotations

import errno
import importlib
import importlib.util
import os
import socket
import sys
from typing import Any

from haoperator.lean.imports import leave_out
from haoperator.lean.notify import error
from haoperator.net.presence import present
from haoperator.net.reset import reset_clients
from haoperator.net.vip import Vip

_IFA_F_NODAD = 0x02  # linux/if_addr.h: usable at once, no duplicate address detection


class AddressError(Exception):
    """The kernel refused; the text says why."""


def add(vip: Vip) -> bool:
    """Put the address on its interface. False if it was there already. Raises AddressError."""
    return _change(vip, "RTM_NEWADDR", errno.EEXIST)


def remove(vip: Vip) -> bool:
    """Take the address away. False if it was not there. Raises AddressError."""
    try:
        return _change(vip, "RTM_DELADDR", errno.EADDRNOTAVAIL)
    except InterfaceMissing:
        return False


def release(vip: Vip) -> bool:
    """Reset what clients have open through the address, then remove it. As `remove` else."""
    load()  # takes time: before the resets, so that nothing new can begin after them
    if present(vip):
        reset_clients(vip)
    return remove(vip)


class InterfaceMissing(AddressError):
    """No such interface now."""


def _change(vip: Vip, operation: str, already: int) -> bool:
    try:
        index = socket.if_nametoindex(vip.interface)
    except OSError:
        raise InterfaceMissing(f"VIP {vip}: there is no interface {vip.interface}") from None
    load()
    from pyroute2 import netlink
    from pyroute2.netlink import exceptions, rtnl
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
    from pyroute2.netlink.rtnl.iprsocket import IPRSocket

    message: Any = ifaddrmsg()
    message["family"] = vip.family
    message["prefixlen"] = vip.prefix
    message["index"] = index
    message["attrs"] = [("IFA_LOCAL", vip.address), ("IFA_ADDRESS", vip.address)]
    flags = netlink.NLM_F_REQUEST | netlink.NLM_F_ACK
    if operation == "RTM_NEWADDR":
        flags |= netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
        if vip.family == socket.AF_INET6:
            message["attrs"].append(("IFA_FLAGS", _IFA_F_NODAD))
    with IPRSocket() as sock:
        sock.bind()
        try:
            tuple(sock.nlm_request(message, getattr(rtnl, operation), flags))
        except exceptions.NetlinkError as err:
            if err.code == already:
                return False
            raise AddressError(f"VIP {vip}: {os.strerror(err.code)}") from err
    return True


def load() -> None:
    """Import what changing an address takes, ahead of time.

    `pyroute2` becomes a package whose submodules can be imported one by one. Raises
    AddressError if it is not there.
    """
    if "pyroute2" not in sys.modules:
        leave_out("ssl")
        spec = importlib.util.find_spec("pyroute2")
        if spec is None:
            raise AddressError("pyroute2 is not installed: apt install python3-pyroute2")
        sys.modules["pyroute2"] = importlib.util.module_from_spec(spec)
    importlib.import_module("pyroute2.netlink.rtnl.iprsocket")


def main(arguments: list[str]) -> int:
    """`add|remove NAME ADDRESS PREFIX INTERFACE`, for the lean keeper."""
    operation = {"add": add, "remove": release}[arguments[0]]
    try:
        operation(Vip.parse(arguments[1:]))
    except AddressError as err:
        error(str(err))
        return 1
    return 0
