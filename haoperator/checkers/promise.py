# SPDX-License-Identifier: Apache-2.0
"""How many wrong answers break the promise, and how many right ones make it whole. Pure."""

from __future__ import annotations


class Answer:
    """What a probe found; `text` says it to people and has no changing numbers in it."""

    __slots__ = ("right", "text")

    def __init__(self, right: bool, text: str) -> None:
        self.right = right
        self.text = text


class Promise:
    """Broken by `failures` wrong answers, which `successes` right ones in a row make
    forgotten. So what flaps is broken too, only later than what is down.

    Nobody knows at the beginning: `well` from `successes` right answers in a row on.
    """

    def __init__(self, failures: int, successes: int = 1) -> None:
        self._allowed = failures
        self._needed = successes
        self.wrong = 0
        self.right = 0
        self.well = False

    @property
    def broken(self) -> bool:
        return self.wrong >= self._allowed

    def note(self, answer: Answer) -> str:
        """Count the answer; the line that `systemctl status` shows."""
        if not answer.right:
            self.wrong += 1
            self.right = 0
            return f"{answer.text} ({self.wrong} of {self._allowed})"
        self.right = min(self.right + 1, self._needed)
        if self.right == self._needed:
            self.well, self.wrong = True, 0
            return answer.text
        return f"{answer.text} (well after {self._needed}, {self.right} so far)"
