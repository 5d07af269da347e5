# SPDX-License-Identifier: Apache-2.0
"""How fast a verification goes: the application first."""

from __future__ import annotations

import time

from haoperator.replica._hotpath import HotPath
from haoperator.replica.asking import Asker

SHARE = 0.25
"""Of the time, at most, is spent on comparing while the application writes."""


class Pace:
    """Called between pieces of work that take some ten milliseconds each."""

    def __init__(self, hot: HotPath, asker: Asker) -> None:
        self._hot = hot
        self._asker = asker
        self._others = self._frames_of_others()
        self._begun = time.monotonic()

    def _frames_of_others(self) -> int:
        return self._hot.state()["sent"] - self._asker.asked

    def rest(self) -> None:
        """After a piece: rest in proportion to it, if the application wrote meanwhile.

        Raises Stopped.
        """
        others = self._frames_of_others()
        if others != self._others:
            took = time.monotonic() - self._begun
            self._asker.rest(took * (1 - SHARE) / SHARE)
        self._asker.check()
        self._others = others
        self._begun = time.monotonic()
