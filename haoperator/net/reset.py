# SPDX-License-Identifier: Apache-2.0
"""Ending the connections of clients before the VIP goes: they get a reset, not silence.

A client that only waits for data would wait for ever: nothing comes from an address that
has gone, and the new primary does not know of it. There are two kinds of connections:

* those that end on this node are aborted by the kernel (`connections.destroy_local`);
* those that NAT passes on, as it does to Docker's published ports, end in another
  network, where this process may not look. Their clients get a reset that is made here.

A client takes a reset for true only if its sequence number is the very next one (RFC
5961), which connection tracking does not tell. So it is asked: a SYN/ACK makes no sense
in a connection that stands, and is answered by an acknowledgement that names that number
(RFC 5961, 4.2). Whatever else a client sends meanwhile names it too. The SYN/ACK begins
nothing in the connection tracking of this node, where a plain segment would.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time

from haoperator.lean import packet_filter
from haoperator.lean.checksum import checksum
from haoperator.lean.notify import info, warn
from haoperator.net import connections
from haoperator.net.connections import Connection
from haoperator.net.vip import Vip

PATIENCE_SECONDS = 0.6
"""For clients to answer: Linux gives such an answer twice a second at most for a connection.
It is on the path of a swap, but only where there are clients that do not answer at once."""
ASK_AGAIN_SECONDS = 0.1
ALL_SECONDS = 1.5
"""For everything, however many they are: the address has to be gone before systemd's patience."""

_TCP = struct.Struct("!HHIIBBHHH")
_RST, _SYN, _ACK = 0x04, 0x02, 0x10
_LEAST_HEADER = 5 << 4
_PACKET_BYTES = 256
_ETH_P_IP, _ETH_P_IPV6 = 0x0800, 0x86DD
_NOTHING = [(0xFFFF, b"\0")]  # no segment has a byte there


def reset_clients(vip: Vip) -> None:
    """Never raises for what cannot be done: the address has to go in any case."""
    end = time.monotonic() + ALL_SECONDS
    ended = 0
    for reset in (reset_forwarded, connections.destroy_local):
        try:
            ended += reset(vip, end)
        except OSError as err:
            warn(f"VIP {vip}: connections of clients are not reset: {err.strerror}")
    if ended:
        info(f"VIP {vip}: {ended} connections of clients reset")
    if time.monotonic() >= end:
        warn(f"VIP {vip}: not all connections of clients were reset in {ALL_SECONDS:g} s")


def reset_forwarded(vip: Vip, end: float) -> int:
    """How many clients were sent a reset with the right number, by `end`. Raises OSError."""
    known = frozenset(connections.forwarded(vip, end))
    if not known:
        return 0
    waiting = set(known)
    end = min(end, time.monotonic() + PATIENCE_SECONDS)
    with _listener(vip) as ears, _speaker(vip) as mouth:
        while waiting and (now := time.monotonic()) < end:
            for number, connection in enumerate(waiting):
                if number % 100 == 0 and time.monotonic() >= end:
                    break
                _send(mouth, vip, connection, 0, _SYN | _ACK)
            again = min(now + ASK_AGAIN_SECONDS, end)
            while waiting and (left := again - time.monotonic()) > 0:
                if not select.select([ears], [], [], left)[0]:
                    break
                named = _named(ears.recv(_PACKET_BYTES), vip)
                if named is not None and named[0] in known:
                    _send(mouth, vip, *named, _RST)
                    waiting.discard(named[0])
    return len(known) - len(waiting)


def _named(packet: bytes, vip: Vip) -> tuple[Connection, int] | None:
    """The connection of a client's segment, and the number that it expects next."""
    if vip.family == socket.AF_INET6:
        client, own, size = packet[8:24], packet[24:40], 40
    else:
        client, own, size = packet[12:16], packet[16:20], (packet[0] & 0x0F) * 4
    if own != vip.packed or len(packet) < size + _TCP.size:
        return None  # from before the filter was there
    client_port, port, _, expected, _, flags, _, _, _ = _TCP.unpack_from(packet, size)
    return ((client, client_port, port), expected) if flags & (_ACK | _RST) == _ACK else None


def _send(mouth: socket.socket, vip: Vip, to: Connection, number: int, flags: int) -> None:
    client, client_port, port = to

    def segment(summed: int) -> bytes:
        return _TCP.pack(port, client_port, number, 0, _LEAST_HEADER, flags, 0, summed, 0)

    length = struct.pack("!II", _TCP.size, socket.IPPROTO_TCP)
    # As 16 or as 32 bits, length and protocol sum up to the same.
    summed = checksum(vip.packed + client + length + segment(0))
    host = socket.inet_ntop(vip.family, client)
    with contextlib.suppress(OSError):  # no way to this client: the others have one
        if vip.family == socket.AF_INET6:
            scope = socket.if_nametoindex(vip.interface) if host.startswith("fe80:") else 0
            mouth.sendto(segment(summed), (host, 0, 0, scope))
        else:
            mouth.sendto(segment(summed), (host, 0))


def _listener(vip: Vip) -> socket.socket:
    """Hears all TCP to the VIP, on whatever interface it comes in, before NAT changes it."""
    six = vip.family == socket.AF_INET6
    kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
    sock = socket.socket(socket.AF_PACKET, kind, socket.htons(_ETH_P_IPV6 if six else _ETH_P_IP))
    protocol = bytes([socket.IPPROTO_TCP])
    packet_filter.attach(sock, [(6 if six else 9, protocol), (24 if six else 16, vip.packed)])
    return sock


def _speaker(vip: Vip) -> socket.socket:
    kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    sock = socket.socket(vip.family, kind, socket.IPPROTO_TCP)
    packet_filter.attach(sock, _NOTHING)
    sock.bind((vip.address, 0))
    return sock
