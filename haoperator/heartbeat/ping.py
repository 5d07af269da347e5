# SPDX-License-Identifier: Apache-2.0
"""Witnesses that answer a ping.

Every echo carries fresh random bytes, so that an answer names its question: it proves that
the witness could be reached after that, however late it comes.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from haoperator.lean import icmp

log = logging.getLogger(__name__)

_TOKEN_BYTES = 16
_REMEMBERED = 16

Answered = Callable[[str, float], None]
"""This target answered the question that was asked at this time."""


class Ping:
    """Asks every address. Time is an input (CLOCK_MONOTONIC)."""

    def __init__(self, addresses: Sequence[str], answered: Answered) -> None:
        self._answered = answered
        self._asked: deque[tuple[bytes, float]] = deque(maxlen=_REMEMBERED)
        self._sequence = 0
        self._targets = {socket.AF_INET: set[str](), socket.AF_INET6: set[str]()}
        for text in addresses:
            address = ip_address(text)
            family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
            self._targets[family].add(str(address))
        self._sockets: dict[socket.AddressFamily, socket.socket] = {}
        self._trouble = ""

    def open(self) -> list[socket.socket]:
        """The sockets to read from. Raises OSError if this process may not ping."""
        for family, targets in self._targets.items():
            if targets and family not in self._sockets:
                self._sockets[family] = icmp.open_socket(family)
        return list(self._sockets.values())

    def close(self) -> None:
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()

    def ask(self, now: float) -> None:
        """One echo to each address."""
        token = os.urandom(_TOKEN_BYTES)
        self._asked.append((token, now))
        self._sequence = (self._sequence + 1) & 0xFFFF
        trouble = ""
        for family, sock in self._sockets.items():
            echo = icmp.echo(family, self._sequence, token)
            for target in self._targets[family]:
                try:
                    sock.sendto(echo, (target, 0))
                except OSError as err:
                    trouble = f"witness {target}: {err.strerror or err}"
        if trouble and trouble != self._trouble:
            log.warning("%s", trouble)
        self._trouble = trouble

    def drain(self) -> None:
        """Read the answers that wait."""
        for family, sock in self._sockets.items():
            while True:
                try:
                    packet, sender = sock.recvfrom(256)
                except OSError:
                    break
                asked_at = dict(self._asked).get(icmp.answered(family, packet))
                if sender[0] in self._targets[family] and asked_at is not None:
                    self._answered(sender[0], asked_at)
