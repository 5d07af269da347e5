# SPDX-License-Identifier: Apache-2.0
"""One heartbeat on the wire: what it says and that the peer said it.

Layout, in network byte order:

    version u8 | link u8 | cluster id 8 | incarnation 8 | echo 8 | sequence u64
    | sender length u8 | status length u16 | sender | status | tag 16

The tag is HMAC-SHA256 over everything before it, cut to 16 bytes. The whole is at
most 1,330 bytes, so that it is never fragmented.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass

VERSION = 1
MAX_STATUS_BYTES = 1200
NOBODY = bytes(8)
"""The echo of a node that has not heard the other yet."""

_HEAD = struct.Struct("!BB8s8s8sQBH")
_TAG_BYTES = 16
MAX_SENDER_BYTES = 64
MAX_PACKET_BYTES = _HEAD.size + MAX_SENDER_BYTES + MAX_STATUS_BYTES + _TAG_BYTES


class Rejected(ValueError):
    """The datagram is not a heartbeat of this cluster's peer; it changes nothing."""


@dataclass(frozen=True, slots=True)
class Packet:
    """`incarnation` names one life of the sending process; `echo` the life of the
    receiver that the sender heard last; `sequence` grows by one with every beat of an
    incarnation and is the same on all links."""

    sender: str
    incarnation: bytes
    echo: bytes
    sequence: int
    link: int
    status: bytes


class Codec:
    """Writes and reads the packets of one cluster."""

    def __init__(self, cluster: str, key: bytes) -> None:
        self._cluster = hashlib.sha256(cluster.encode()).digest()[:8]
        self._keyed = hmac.new(key, digestmod=hashlib.sha256)

    def encode(self, packet: Packet) -> bytes:
        """The datagram. Raises ValueError if the status or the sender is too long."""
        sender = packet.sender.encode()
        if len(packet.status) > MAX_STATUS_BYTES:
            raise ValueError(f"status of {len(packet.status)} bytes, at most {MAX_STATUS_BYTES}")
        if len(sender) > MAX_SENDER_BYTES:
            raise ValueError(f"node name of {len(sender)} bytes, at most {MAX_SENDER_BYTES}")
        head = _HEAD.pack(
            VERSION,
            packet.link,
            self._cluster,
            packet.incarnation,
            packet.echo,
            packet.sequence,
            len(sender),
            len(packet.status),
        )
        body = head + sender + packet.status
        return body + self._tag(body)

    def decode(self, datagram: bytes) -> Packet:
        """What an authentic datagram says. Raises Rejected for every other one."""
        if not _HEAD.size + _TAG_BYTES <= len(datagram) <= MAX_PACKET_BYTES:
            raise Rejected("length")
        # Before the tag is checked, nothing but these two public fields is looked at.
        if datagram[0] != VERSION:
            raise Rejected(f"protocol version {datagram[0]}, this node speaks {VERSION}")
        if datagram[2:10] != self._cluster:
            raise Rejected("another cluster")
        body, tag = datagram[:-_TAG_BYTES], datagram[-_TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(body)):
            raise Rejected("not authentic: do both nodes have the same cluster.key?")
        _, link, _, incarnation, echo, sequence, sender_length, status_length = _HEAD.unpack_from(
            body
        )
        rest = body[_HEAD.size :]
        if len(rest) != sender_length + status_length:
            raise Rejected("inner lengths")
        try:
            sender = rest[:sender_length].decode()
        except UnicodeDecodeError:
            raise Rejected("sender is not UTF-8") from None
        return Packet(sender, incarnation, echo, sequence, link, rest[sender_length:])

    def _tag(self, body: bytes) -> bytes:
        keyed = self._keyed.copy()
        keyed.update(body)
        return keyed.digest()[:_TAG_BYTES]
