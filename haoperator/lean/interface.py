# SPDX-License-Identifier: Apache-2.0
"""Whether a network interface is of any use at the moment (netdevice(7))."""

from __future__ import annotations

import fcntl
import socket
import struct

_SIOCGIFFLAGS = 0x8913
_REQUEST = struct.Struct("=16sH14x")
_UP, _RUNNING = 0x1, 0x40


def trouble(name: str) -> str:
    """Why no frame can pass the interface, `""` if it is up and has a carrier."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            answer = fcntl.ioctl(sock, _SIOCGIFFLAGS, _REQUEST.pack(name.encode(), 0))
        except OSError:
            return f"there is no interface {name}"
    _, flags = _REQUEST.unpack(answer)
    if not flags & _UP:
        return f"{name} is down"
    return "" if flags & _RUNNING else f"{name} has no carrier"
