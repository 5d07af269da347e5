# SPDX-License-Identifier: Apache-2.0
"""Does a port accept, an address answer; is an interface up, a virtual IP here?"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import time

from haoperator.checkers.conversation import Conversation, host_and_port, reason
from haoperator.checkers.promise import Answer
from haoperator.lean import icmp

_SIOCGIFFLAGS = 0x8913
_IFF_UP, _IFF_RUNNING = 0x1, 0x40
_IFREQ_BYTES = 40
_TOKEN_BYTES = 16


def tcp(target: str, timeout: float) -> Answer:
    """`host:port` accepts a connection."""
    try:
        with Conversation(*host_and_port(target), timeout):
            return Answer(True, f"{target} accepts connections")
    except OSError as err:
        return Answer(False, f"{target}: {reason(err, timeout)}")


def ping(target: str, timeout: float) -> Answer:
    """The address answers an ICMP echo, which is sent once."""
    family = socket.AF_INET6 if ":" in target else socket.AF_INET
    deadline = time.monotonic() + timeout
    token = os.urandom(_TOKEN_BYTES)
    try:
        with icmp.open_socket(family) as sock:
            sock.sendto(icmp.echo(family, 1, token), (target, 0))
            while (left := deadline - time.monotonic()) > 0:
                if not select.select([sock], [], [], left)[0]:
                    break
                packet, sender = sock.recvfrom(256)
                if sender[0] == target and icmp.answered(family, packet) == token:
                    return Answer(True, f"{target} answers")
    except OSError as err:
        return Answer(False, f"{target}: {reason(err, timeout)}")
    return Answer(False, f"{target}: no answer within {timeout:g} s")


def link(target: str, _timeout: float) -> Answer:
    """The interface is up and operational, which takes a carrier: netdevice(7)."""
    request = target.encode().ljust(_IFREQ_BYTES, b"\0")
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            told = fcntl.ioctl(sock, _SIOCGIFFLAGS, request)
    except OSError as err:
        return Answer(False, f"{target}: {err.strerror}")
    (flags,) = struct.unpack_from("=H", told, 16)
    if not flags & _IFF_UP:
        return Answer(False, f"{target} is down")
    if not flags & _IFF_RUNNING:
        return Answer(False, f"{target} has no carrier")
    return Answer(True, f"{target} is up")


def vip(target: str, _timeout: float, *, interface: str) -> Answer:
    """The address is on its interface, with its prefix length."""
    from haoperator.net.presence import present
    from haoperator.net.vip import Vip

    address, _, prefix = target.partition("/")
    try:
        there = present(Vip("", address, int(prefix), interface))
    except OSError as err:
        return Answer(False, f"{target}: {err.strerror}")
    return Answer(there, f"{target} is {'' if there else 'not '}on {interface}")
