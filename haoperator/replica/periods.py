# SPDX-License-Identifier: Apache-2.0
"""The trackers of all directories, their one log, and when marks are retired.

All methods are called under `Standing.decide`. Those that begin something have the gate
closed: no change is in flight.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from haoperator.replica import marks
from haoperator.replica._hotpath import HotPath
from haoperator.replica.intent import IntentLog
from haoperator.replica.marks import HINTS, Mark
from haoperator.replica.mounts import Mounts

log = logging.getLogger(__name__)


class Periods:
    """What this node noted of its own changes, since both copies were last known to be equal."""

    def __init__(self, intent: IntentLog, mounts: Mounts, hot: HotPath) -> None:
        self._intent = intent
        self._mounts = mounts
        self._hot = hot
        self._begun = False

    def begin(self) -> None:
        """This node becomes primary. What it noted before may be unknown to the peer."""
        with self._namespaces():
            for directory in self._mounts:
                directory.tracker.take_up(self._intent.marks)
        self._hot.begin_period()
        self._hot.track(True)
        self._begun = True

    def end(self) -> None:
        """This node is primary no more: all that it knows is in the log."""
        if self._begun:
            self._begun = False
            with contextlib.suppress(OSError):  # the former marks stand for more than these
                self.write_down()
            with self._namespaces():
                for directory in self._mounts:
                    directory.tracker.give_up()

    def lose_peer(self) -> None:
        """From here on exactly what changes is remembered for the peer."""
        if any(directory.tracker.changes is None for directory in self._mounts):
            with self._namespaces():
                for directory in self._mounts:
                    directory.tracker.lose_peer()
            self._hot.begin_period()
            self._hot.track(True)

    def peer_has_everything(self, *, on_disk: bool) -> None:
        """Both copies are equal from here on. `on_disk`: the peer's would survive a power cut."""
        with self._namespaces():
            for directory in self._mounts:
                directory.tracker.peer_has_everything(on_disk=on_disk)
        self._hot.track(False)

    def add_peers(self, noted: list[Mark]) -> None:
        """What the peer noted when it was primary: it may lack or have more there."""
        places = [mark for mark in noted if mark.kind not in HINTS]  # its own it has followed
        with self._namespaces():
            for directory in self._mounts:
                directory.tracker.take_up(directory.tracker.translated(places))

    def differ(self, found: list[Mark]) -> None:
        """A verification found that these differ: the next resync compares them, whatever dies
        before. The gate is closed. Raises OSError: then only as long as this process lives."""
        self.lose_peer()
        with self._namespaces():
            for directory in self._mounts:
                directory.tracker.take_up(found)
        self.write_down()

    @property
    def anything(self) -> bool:
        """Whether there is something that could be retired."""
        return any(directory.tracker.anything for directory in self._mounts)

    def rotate(self) -> None:
        """A new period begins."""
        with self._namespaces():
            for directory in self._mounts:
                directory.tracker.rotate()
        self._hot.begin_period()

    def settle(self) -> None:
        """What was changed before the last `rotate` is on disk, here and at the peer if there
        is one: what was not touched since the one before is retired. Raises OSError."""
        with self._namespaces():
            for directory in self._mounts:
                directory.tracker.settle()
        self.write_down()

    def write_down(self) -> None:
        """Replace the log by what is known now. Raises OSError: it holds the former then."""
        with self._namespaces():
            mounted = {directory.tracker.name for directory in self._mounts}
            kept = [mark for mark in self._intent.marks if mark.directory not in mounted]
            for directory in self._mounts:
                kept += directory.tracker.marks()
            self._intent.replace(kept)

    # On a standby.

    def packed(self) -> bytes:
        """What this node noted, for its primary."""
        return marks.pack(self._intent.marks)

    def clear(self) -> None:
        """Both copies are equal, and on disk. Raises OSError."""
        if self._intent.marks:
            self._intent.replace([])

    @contextlib.contextmanager
    def _namespaces(self) -> Iterator[None]:
        """The mutexes of all directories, in their order."""
        with contextlib.ExitStack() as stack:
            for directory in self._mounts:
                stack.enter_context(directory.namespace)
            yield
