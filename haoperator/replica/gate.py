# SPDX-License-Identifier: Apache-2.0
"""The gate before everything that changes something (gate.c), as decisions use it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from haoperator.replica import _hotpath

QUIESCE_MS = 10_000

Dispatch = Callable[[int, bytes], None]
"""Serves one request in Python: (/dev/fuse, request)."""


class Stuck(RuntimeError):
    """A change hangs in the backing file system: nothing can be promised any more."""


class Gate:
    """Opened and closed under `Standing.decide`."""

    def __init__(self, hot: _hotpath.HotPath, dispatch: Dispatch) -> None:
        self._hot = hot
        self._dispatch = dispatch
        hot.set_gate(_hotpath.GATE_READ_ONLY)

    def close(self) -> None:
        """Park what comes; returns when nothing is in flight. Raises Stuck."""
        self.park()
        self._quiesce()

    def park(self) -> None:
        """Park what comes, and do not wait for what is in flight."""
        self._hot.set_gate(_hotpath.GATE_PARK)

    def refuse(self) -> None:
        """EROFS for what comes and what is parked; returns when nothing is in flight.

        Raises Stuck; until it has returned once, somebody may still be writing.
        """
        self._hot.set_gate(_hotpath.GATE_READ_ONLY)
        self._quiesce()

    def open(self) -> None:
        """Let everything through; what is parked is served by a thread of its own."""
        self._hot.set_gate(_hotpath.GATE_OPEN)
        threading.Thread(target=self._serve_parked, name="parked", daemon=True).start()

    def _quiesce(self) -> None:
        if not self._hot.quiesce(QUIESCE_MS):
            raise Stuck("a change has been under way for too long")

    def _serve_parked(self) -> None:
        _hotpath.own_umask()
        while (parked := self._hot.take_parked()) is not None:
            fuse_fd, index, request = parked
            if not self._hot.handle(fuse_fd, index, request):
                self._dispatch(fuse_fd, request)
