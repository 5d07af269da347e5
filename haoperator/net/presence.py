# SPDX-License-Identifier: Apache-2.0
"""Is the address there? Asked of the kernel, each time."""

from __future__ import annotations

import errno
import socket

from haoperator.lean import netlink
from haoperator.net.vip import Vip


def present(vip: Vip) -> bool:
    """Whether the kernel has this address, with this prefix, on this interface.

    Raises OSError if that cannot be told.
    """
    try:
        index = socket.if_nametoindex(vip.interface)
    except OSError:
        return False
    try:
        return (vip.prefix, vip.packed) in netlink.addresses(vip.family, index)
    except OSError as err:
        if err.errno == errno.ENODEV:  # it went away right now
            return False
        raise
