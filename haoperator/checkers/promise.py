# SPDX-License-Identifier: Apache-2.0
"""How many wrong answers in a row break the promise. Pure."""

from __future__ import annotations


class Answer:
    """What a probe found; `text` says it to people and has no changing numbers in it."""

    __slots__ = ("right", "text")

    def __init__(self, right: bool, text: str) -> None:
        self.right = right
        self.text = text


class Promise:
    """Kept as long as fewer than `failures` answers in a row are wrong."""

    def __init__(self, failures: int) -> None:
        self._allowed = failures
        self.wrong = 0

    @property
    def broken(self) -> bool:
        return self.wrong >= self._allowed

    def note(self, answer: Answer) -> str:
        """Count the answer; the line that `systemctl status` shows."""
        if answer.right:
            self.wrong = 0
            return answer.text
        self.wrong += 1
        return f"{answer.text} ({self.wrong} of {self._allowed})"
