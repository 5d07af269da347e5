# SPDX-License-Identifier: Apache-2.0
"""What a standby keeps to go back to, while a resync makes its tree a mixture."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable

from haoperator.replica.directory import Directory
from haoperator.replica.snapshot import Snapshot

log = logging.getLogger(__name__)


class Fallback:
    """Snapshots of all directories, or none: only together are they one state of the data.

    Its methods are called under `Standing.decide`.
    """

    def __init__(self, *, wanted: bool, directories: Iterable[Directory]) -> None:
        self._wanted = wanted
        self._directories = directories
        self._taking: threading.Thread | None = None
        self._tried = False

    def prepare(self) -> bool:
        """Whether a resync may begin. False: a snapshot is being taken, ask again.

        The tree is consistent and nobody writes to it. What cannot be taken does not keep
        a resync away: that is said, and the node has nothing to go back to.
        """
        if not self._wanted or self._tried:
            return True
        if self._taking is None:
            snapshots = self._snapshots()
            self._taking = threading.Thread(
                target=self._take, args=(snapshots,), name="snapshot", daemon=True
            )
            self._taking.start()
        if self._taking.is_alive():
            return False
        self._taking, self._tried = None, True
        return True

    @staticmethod
    def _take(snapshots: list[Snapshot]) -> None:
        began = time.monotonic()
        try:
            for snapshot in snapshots:
                snapshot.take()
        except OSError as err:
            log.error("no snapshot before the resync: %s", err.strerror)
            _drop(snapshots)
        else:
            log.info("snapshot taken before the resync, in %.1f s", time.monotonic() - began)

    @property
    def taken_at(self) -> float | None:
        """Seconds since the epoch; None: there is nothing to go back to."""
        with contextlib.suppress(OSError):
            snapshots = self._snapshots()
            if snapshots and all(snapshot.whole for snapshot in snapshots):
                return min(snapshot.taken_at for snapshot in snapshots)
        return None

    def go_back(self) -> None:
        """Make the trees what they were before the resync began. Raises OSError."""
        snapshots = self._snapshots()
        for snapshot in snapshots:
            if snapshot.whole:
                snapshot.restore()
        _in_background(_drop, snapshots)

    def give_up(self) -> None:
        """The trees are consistent: what was kept is of no use."""
        self._tried = False
        if self._wanted:
            _in_background(_drop, self._snapshots())

    def _snapshots(self) -> list[Snapshot]:
        return [Snapshot(directory.name, directory.root_fd) for directory in self._directories]


def _drop(snapshots: list[Snapshot]) -> None:
    for snapshot in snapshots:
        try:
            snapshot.drop()
        except OSError as err:
            log.warning("a snapshot is left behind: %s", err.strerror)


def _in_background(work: Callable[[list[Snapshot]], None], snapshots: list[Snapshot]) -> None:
    threading.Thread(target=work, args=(snapshots,), name="snapshot", daemon=True).start()
