# SPDX-License-Identifier: Apache-2.0
"""Questions of a verification to the standby, and the answers to them."""

from __future__ import annotations

import threading

from haoperator.replica import frames, wire
from haoperator.replica.directory import Directory
from haoperator.replica.outgoing import Outgoing

ANSWER_SECONDS = 60.0
"""How long the standby's disk may be busy with one part of an answer."""


MOST_ANSWER_BYTES = 64 * 1024 * 1024
"""Of answers that wait to be looked at: some times more than can be asked for at once."""


class Stopped(Exception):
    """The verification cannot go on; the text says why."""


class Asker:
    """For one verification, on the stream that is attached when it is made.

    A question is answered by one HASHES, or by CHECKEDs up to the one that says so.
    """

    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing
        self._epoch = outgoing.epoch
        self._answers: dict[int, list[frames.FromPeer]] = {}
        self._held = 0
        self._changed = threading.Condition()
        self._stopped = ""

    def stop(self, reason: str) -> None:
        """Whoever asks or waits for an answer gets Stopped. Callable in any thread."""
        with self._changed:
            self._stopped = self._stopped or reason
            self._changed.notify_all()

    def check(self) -> None:
        """Raises Stopped if it was stopped."""
        if self._stopped:
            raise Stopped(self._stopped)

    def ask(self, directory: Directory, frame: frames.FromPrimary) -> int:
        """Append a question to the stream, at the place that the caller's locks hold for it."""
        with self._changed:  # the answer may come before we have written down the question
            seq = self.tell(directory, 0, frame)
            self._answers[seq] = []
        return seq

    def tell(self, directory: Directory, node: int, frame: frames.FromPrimary) -> int:
        """Append a frame that is not answered; its seq. Nothing is sent after `stop`."""
        with self._changed:
            self.check()
            return self._sent(self._outgoing.submit(directory.index, node, frame, self._epoch))

    def tell_data(self, directory: Directory, node: int, payload: bytes) -> None:
        """Append a SYNCDATA to a file that the standby knows. Its node lock is held."""
        hot, kind = self._outgoing.hot, frames.Type.SYNCDATA
        with self._changed:
            self.check()
            self._sent(hot.submit(kind, directory.index, node, payload, -1, 0, b"", self._epoch))

    def _sent(self, seq: int) -> int:
        if not seq:
            raise Stopped("the stream to the standby ended")
        return seq

    def send(self) -> None:
        """Let the questions go out. Hold no lock."""
        self._outgoing.hot.flush()

    def deliver(self, seq: int, answer: frames.FromPeer) -> None:
        """The standby's answer, or a part of it. Callable in any thread."""
        with self._changed:
            parts = self._answers.get(seq)
            if parts is None:
                return
            parts.append(answer)
            self._held += _size(answer)
            if self._held > MOST_ANSWER_BYTES:
                self._stopped = self._stopped or "the standby answers more than it was asked"
            self._changed.notify_all()

    def hashes(self, seq: int) -> bytes:
        """Wait for the answer to a SUM. Raises Stopped."""
        (answer,) = self._answer(seq)
        return answer.hashes if isinstance(answer, frames.Hashes) else b""

    def seen(self, seq: int) -> list[frames.Seen]:
        """Wait for the answer to a CHECK or a LOOK. Raises Stopped."""
        packed = b"".join(a.entries for a in self._answer(seq) if isinstance(a, frames.Checked))
        try:
            return wire.unpack_seen(packed)
        except wire.Rubbish as err:
            raise Stopped(f"the standby answers rubbish: {err}") from err

    def _answer(self, seq: int) -> list[frames.FromPeer]:
        with self._changed:
            self.check()
            parts = self._answers[seq]
            while not _ended(parts):
                came = self._changed.wait(ANSWER_SECONDS)
                self.check()
                if not came:
                    raise Stopped(f"the standby does not answer within {ANSWER_SECONDS:.0f} s")
            self._held -= sum(map(_size, parts))
            return self._answers.pop(seq)


def _size(part: frames.FromPeer) -> int:
    match part:
        case (
            frames.Hashes(data)
            | frames.Nack(data)
            | frames.Checked(_, data)
            | frames.Marks(_, data)
        ):
            return len(data)


def _ended(parts: list[frames.FromPeer]) -> bool:
    return bool(parts) and not (isinstance(parts[-1], frames.Checked) and not parts[-1].last)
