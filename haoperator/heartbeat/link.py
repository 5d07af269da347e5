# SPDX-License-Identifier: Apache-2.0
"""One heartbeat network: a UDP socket between this node's address and the peer's.

Each link stands alone. One whose address is not there yet, or goes away, is tried
again with every beat, and says so once.
"""

from __future__ import annotations

import errno
import logging
import socket
from ipaddress import ip_address

from haoperator.heartbeat.packet import MAX_PACKET_BYTES

PORT = 7410

_CLASS_SELECTOR_6 = 0xC0  # network control: what routers keep when a queue is full

# The other side's process is not there, or its network: no reason to reopen.
_PEER_AWAY = {
    errno.ECONNREFUSED,
    errno.EHOSTUNREACH,
    errno.ENETUNREACH,
    errno.ENETDOWN,
    errno.EHOSTDOWN,
    errno.ENOBUFS,
    errno.EPERM,  # a firewall of this node drops it
}

log = logging.getLogger(__name__)


class Link:
    """`socket` is None while the link cannot be opened. `peer` is the address at the other end."""

    def __init__(self, name: str, index: int, own: str, peer: str, port: int = PORT) -> None:
        self.name = name
        self.index = index
        self.socket: socket.socket | None = None
        self._own = own
        self.peer = peer
        self._port = port
        self._trouble = ""

    def open(self) -> bool:
        """Try to open a closed link. True if it is newly open."""
        if self.socket is not None:
            return False
        version = ip_address(self._own).version
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            if version == 6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, _CLASS_SELECTOR_6)
            else:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, _CLASS_SELECTOR_6)
            sock.bind((self._own, self._port))
            # Connected: the kernel drops what does not come from the peer's address.
            sock.connect((self.peer, self._port))
        except OSError as err:
            sock.close()
            self._say(f"cannot be opened on {self._own}: {err.strerror or err}")
            return False
        self.socket = sock
        if self._trouble:
            log.info("link %s: open on %s", self.name, self._own)
        self._trouble = ""
        return True

    def close(self) -> None:
        """Give the socket back; `open` may follow."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def send(self, datagram: bytes) -> bool:
        """Send one packet. False if the link must be closed and opened again."""
        if self.socket is None:
            return True
        try:
            self.socket.send(datagram)
        except BlockingIOError:
            return True
        except OSError as err:
            if err.errno == errno.ECONNREFUSED:
                # The answer to an earlier packet; this one has not been sent.
                return self._send_again(datagram)
            self._say(f"cannot send from {self._own}: {err.strerror or err}")
            return err.errno in _PEER_AWAY
        self._trouble = ""
        return True

    def receive(self) -> bytes | None:
        """One datagram that waits, None if there is none (or the link has an error)."""
        while self.socket is not None:
            try:
                return self.socket.recv(MAX_PACKET_BYTES + 1)
            except BlockingIOError:
                return None
            except OSError as err:
                if err.errno != errno.ECONNREFUSED:
                    self._say(f"cannot receive on {self._own}: {err.strerror or err}")
                    return None
        return None

    def _send_again(self, datagram: bytes) -> bool:
        if self.socket is not None:
            try:
                self.socket.send(datagram)
            except OSError as err:
                return err.errno in _PEER_AWAY
        return True

    def _say(self, trouble: str) -> None:
        if trouble != self._trouble:
            log.warning("link %s: %s", self.name, trouble)
            self._trouble = trouble
