# SPDX-License-Identifier: Apache-2.0
"""The frames of a resync on their way to the peer, and the peer's answers to them."""

from __future__ import annotations

import collections
import struct
import threading

from haoperator.replica import frames, marks, wire
from haoperator.replica.directory import Directory
from haoperator.replica.nodes import Node
from haoperator.replica.outgoing import Outgoing
from haoperator.replica.pacing import Pace

ANSWER_SECONDS = 60.0
MOST_MARKS_BYTES = 64 * 1024 * 1024

_SYNCDATA = struct.Struct("<QqII")


class Interrupted(Exception):
    """The stream ended, or the role changed. A resync simply begins again."""


class Courier:
    """For one resync, on the stream that is attached when it is made.

    What comes too late for that stream raises Interrupted and is not sent on another.
    """

    def __init__(self, outgoing: Outgoing, rate: int = 0) -> None:
        self.outgoing = outgoing
        self.hot = outgoing.hot
        self.epoch = outgoing.epoch
        self.pace = Pace(outgoing.hot, rate)
        self._in_flight: collections.deque[int] = collections.deque()
        self._answers: dict[int, bytes] = {}
        self._changed = threading.Condition()
        self._cancelled = False
        self._marks = bytearray()
        self._marks_whole = False
        self._peers_marks: list[marks.Mark] = []

    def cancel(self) -> None:
        """Make the walk raise Interrupted soon. Callable in any thread."""
        with self._changed:
            self._cancelled = True
            self._changed.notify_all()

    def check(self) -> None:
        if self._cancelled:
            raise Interrupted

    def submit(self, directory: Directory, node: int, frame: frames.Frame) -> int:
        """Append a frame; its seq."""
        return self._sent(self.outgoing.submit(directory.index, node, frame, self.epoch))

    def tell(self, directory: Directory, frame: frames.Frame) -> None:
        """A frame that the walk does not wait for. Callable in any thread."""
        self.outgoing.submit(directory.index, 0, frame, self.epoch)
        self.hot.flush()

    def submit_data(self, directory: Directory, node: Node, place: int, data: bytes) -> None:
        """Append a block of a file. The node lock is held: it is true at this place."""
        self.pace.sent(len(data))
        payload = _SYNCDATA.pack(place, frames.NO_TIME, 0, 0) + data
        kind = frames.Type.SYNCDATA
        self._sent(self.hot.submit(kind, directory.index, node.id, payload, -1, 0, b"", self.epoch))

    def _sent(self, seq: int) -> int:
        if not seq:
            raise Interrupted  # another stream, or none
        self._in_flight.append(seq)
        return seq

    def settle(self) -> None:
        """Send, do not run far ahead of the peer, and leave it time for others. Hold no lock."""
        self.check()
        self.hot.flush()
        while len(self._in_flight) > self.pace.in_flight:
            if not self.hot.wait_acked(self._in_flight.popleft(), int(ANSWER_SECONDS * 1000)):
                raise Interrupted
        self.pace.rest()

    def deliver(self, seq: int, hashes: bytes) -> None:
        """The peer's answer to a HASH. Callable in any thread."""
        with self._changed:
            self._answers[seq] = hashes
            self._changed.notify_all()

    def deliver_marks(self, part: frames.Marks) -> None:
        """What the peer noted comes in parts. Callable in any thread. Raises Rubbish."""
        with self._changed:
            self._marks += part.marks
            self._marks_whole = bool(part.last)
            if self._marks_whole:
                try:
                    self._peers_marks = marks.whole(bytes(self._marks))
                except marks.Broken as err:
                    raise wire.Rubbish(str(err)) from err
            elif len(self._marks) > MOST_MARKS_BYTES:
                raise wire.Rubbish("marks without end")
            self._changed.notify_all()

    def peers_marks(self) -> list[marks.Mark]:
        """Wait for all that the peer noted. Raises Interrupted."""
        with self._changed:
            got = self._changed.wait_for(
                lambda: self._marks_whole or self._cancelled, ANSWER_SECONDS
            )
            self.check()
            if not got:
                raise Interrupted
            return self._peers_marks

    def answer(self, seq: int) -> bytes:
        """Wait for the answer to the HASH that was submitted as `seq`."""
        with self._changed:
            got = self._changed.wait_for(
                lambda: seq in self._answers or self._cancelled, ANSWER_SECONDS
            )
            self.check()
            if not got:
                raise Interrupted
            return self._answers.pop(seq)
