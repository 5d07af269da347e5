# SPDX-License-Identifier: Apache-2.0
"""A standby that writes down what a primary sends, instead of doing it."""

from __future__ import annotations

import contextlib
import select
import struct
import threading
from dataclasses import dataclass

from haoperator.replica import handshake
from haoperator.replica._hotpath import Channel
from haoperator.replica.frames import Type
from haoperator.replica.sockets import listen
from tests.replica.node_process import settings_from
from tests.replica.pair import Node

HEAD = struct.Struct("<IHHQQ")
"""Length, type, directory, seq, node: see frames.h."""
PULSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it was sent."""

    type: int
    directory: int
    node: int
    payload: bytes

    def packed(self, seq: int) -> bytes:
        """As the frame number `seq` of another stream."""
        length = HEAD.size + len(self.payload)
        return HEAD.pack(length, self.type, self.directory, seq, self.node) + self.payload


class Recorder:
    """Takes the stream of a primary in the place of its standby, which must not run.

    It says that it has everything, and acknowledges each frame when it is written down:
    what the primary has answered to its callers is in `frames`.
    """

    def __init__(self, standby: Node) -> None:
        self.frames: list[Frame] = []
        self._settings = settings_from(standby.settings)
        self._listening = listen(self._settings.links[0].own, self._settings)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._thread.join(10)
        self._listening.close()

    def _serve(self) -> None:
        while not self._closed.is_set():
            if not select.select([self._listening], [], [], PULSE_SECONDS)[0]:
                continue
            sock, _ = self._listening.accept()
            with contextlib.suppress(OSError, handshake.HandshakeError):
                meeting = handshake.as_standby(sock, self._settings)
                if meeting.asked.get("knock"):
                    handshake.answer(meeting.channel, {"refuse": "knock", "reason": "heard"})
                else:
                    handshake.answer(meeting.channel, {"accept": "synced"})
                    self._record(meeting.channel)
                meeting.channel.close()

    def _record(self, channel: Channel) -> None:
        while not self._closed.is_set():
            try:
                head = channel.receive(HEAD.size, int(PULSE_SECONDS * 1000))
            except TimeoutError:
                channel.send(HEAD.pack(HEAD.size, Type.PING, 0, 0, 0), -1)
                continue
            length, type_number, directory, seq, node = HEAD.unpack(head)
            payload = channel.receive(length - HEAD.size, -1)
            if seq:
                self.frames.append(Frame(type_number, directory, node, payload))
            if type_number == Type.FSYNC:
                channel.send(HEAD.pack(HEAD.size, Type.SYNCED, 0, seq, 0), -1)
            channel.send(HEAD.pack(HEAD.size, Type.ACK if seq else Type.PING, 0, seq, 0), -1)
