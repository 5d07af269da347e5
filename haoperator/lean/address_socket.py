# SPDX-License-Identifier: Apache-2.0
"""Speaking of one address on one network segment, and hearing who else claims it."""

from __future__ import annotations

import socket

from haoperator.lean import packet_filter, resolution

_ETHERNET = 1  # ARPHRD_ETHER
_FRAME_BYTES = 256  # a claim is shorter
_FRAMES_AT_ONCE = 64


class AddressSocket:
    """A packet socket. Every method raises OSError when its interface is down or has gone.

    `address` is packed. On an interface that is not Ethernet there are no neighbours
    to speak to: nothing is sent, and nothing heard.
    """

    def __init__(self, interface: str, address: bytes) -> None:
        self._interface = interface
        self._address = address
        self._index = socket.if_nametoindex(interface)
        protocol = resolution.IPV6 if len(address) == 16 else resolution.ARP
        # Protocol 0 receives nothing: the filter is there before the first frame is.
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_PACKET, kind, 0)
        try:
            packet_filter.attach(self._socket, resolution.claims(address))
            self._socket.bind((interface, protocol))
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> AddressSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    @property
    def stale(self) -> bool:
        """The interface was made anew under the same name: open another socket."""
        return socket.if_nametoindex(self._interface) != self._index

    @property
    def mac(self) -> bytes:
        """The interface's hardware address at the moment; empty if it is not Ethernet."""
        _, _, _, hardware, mac = self._socket.getsockname()
        return bytes(mac) if hardware == _ETHERNET else b""

    def announce(self) -> None:
        """Tell everybody that the address is here."""
        if mac := self.mac:
            for frame in resolution.announcement(self._address, mac):
                self._socket.send(frame)

    def probe(self) -> None:
        """Ask everybody else whether they have the address; `claimants` tells."""
        if mac := self.mac:
            self._socket.send(resolution.probe(self._address, mac))

    def claimants(self) -> list[bytes]:
        """The MAC addresses of other machines in claims that wait to be read; never waits.

        Reads a bounded number, so that a flood of them holds up nobody; more make the
        socket readable again.
        """
        own = self.mac
        found = []
        for _ in range(_FRAMES_AT_ONCE):
            try:
                frame = self._socket.recv(_FRAME_BYTES)
            except BlockingIOError:
                break
            mac = resolution.claimant(frame, self._address)
            if mac is not None and mac != own:
                found.append(mac)
        return found
