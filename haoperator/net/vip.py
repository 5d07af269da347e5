# SPDX-License-Identifier: Apache-2.0
"""One virtual IP, as its processes hand it on."""

from __future__ import annotations

import socket

TRACE = "vip"
"""The kind of its trace in /run."""


class Vip:
    """`address` without its prefix length. A plain class: it lives in a lean process."""

    __slots__ = ("address", "interface", "name", "prefix")

    def __init__(self, name: str, address: str, prefix: int, interface: str) -> None:
        self.name = name
        self.address = address
        self.prefix = prefix
        self.interface = interface

    @classmethod
    def parse(cls, arguments: list[str]) -> Vip:
        """The reverse of `arguments`."""
        name, address, prefix, interface = arguments
        return cls(name, address, int(prefix), interface)

    @property
    def arguments(self) -> list[str]:
        """For a command line or a line in a file."""
        return [self.name, self.address, str(self.prefix), self.interface]

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET

    @property
    def packed(self) -> bytes:
        """The address in network byte order."""
        return socket.inet_pton(self.family, self.address)

    def __str__(self) -> str:
        return f"{self.name} ({self.address}/{self.prefix} on {self.interface})"
