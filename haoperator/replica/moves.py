# SPDX-License-Identifier: Apache-2.0
"""Names that move while a walk is under way: where it was not yet, to where it has been.

They are visited once more at their new places. What was made since the walk began, and a
directory that was visited, need not be. When no directory is left unvisited, only names
that wait already are followed any more: so the walk ends, whatever the application does.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace

from haoperator.replica.directory import Directory
from haoperator.replica.nodes import Node
from haoperator.replica.verification import Verification

MOST_MOVED = 4096
"""Names that wait to be visited. More of them are counted as missed."""
MOST_TRIES = 8
"""How often a name is visited that moves again each time meanwhile."""
MOST_SETTLED = 500_000
"""Files that are remembered as visited. Others are visited after every move."""

Key = tuple[int, int]
"""Directory and inode."""


@dataclass(frozen=True, slots=True)
class Work:
    """A name to visit. `parent` is pinned. The root is its own parent, by the name `.`."""

    directory: Directory
    parent: Node
    name: bytes
    inode: int = 0
    """What had the name, if that is known."""
    is_directory: bool = False
    tries: int = 0
    """How often it was visited, and moved again meanwhile."""

    @property
    def key(self) -> Key:
        return self.directory.index, self.inode


class Moves:
    """Told by many threads, each under the namespace mutex of the directory; asked by one."""

    def __init__(self, report: Verification) -> None:
        self._report = report
        self._lock = threading.Lock()
        """Taken after a namespace mutex."""
        self._waiting: dict[Key, Work] = {}
        self._visiting: dict[Key, Work] = {}
        self._settled: set[Key] = set()
        """Files that were visited. Whatever has such an inode later was made since."""
        self._closing = False

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __iter__(self) -> Iterator[Work]:
        """All that wait, once nobody tells of more."""
        return iter(list(self._waiting.values()))

    def follow(self, moved: Work) -> None:
        """Something has a new name. Pins the parent if it is to be visited."""
        with self._lock:
            if moved.key in self._settled:
                return
            tries, waits = 0, self._waiting.get(moved.key)
            if waits is not None:
                tries = waits.tries
            elif moved.key in self._visiting:
                tries = self._visiting[moved.key].tries + 1
            elif self._closing:
                return
            if tries == MOST_TRIES or (waits is None and len(self._waiting) >= MOST_MOVED):
                self._report.missed += 1
                return
            moved.parent.pins += 1
            self._waiting[moved.key] = replace(moved, tries=tries)
            if waits is not None:
                waits.directory.nodes.unpin(waits.parent)

    def close_unless(self, unvisited: bool) -> None:
        """Follow only what waits from now on, if no directory is left that was not visited."""
        with self._lock:
            unvisited = unvisited or any(work.is_directory for work in self._waiting.values())
            self._closing = not unvisited

    @contextlib.contextmanager
    def some(self, most: int) -> Iterator[list[Work]]:
        """Names to visit now; they are done with, unless they move again meanwhile."""
        with self._lock:
            keys = list(itertools.islice(self._waiting, most))
            self._visiting = {key: self._waiting.pop(key) for key in keys}
        try:
            yield list(self._visiting.values())
        finally:
            for work in self._visiting.values():
                with work.directory.namespace:
                    work.directory.nodes.unpin(work.parent)
            with self._lock:
                for key, work in self._visiting.items():
                    stayed = key not in self._waiting and not work.is_directory
                    if stayed and len(self._settled) < MOST_SETTLED:
                        self._settled.add(key)
                self._visiting = {}
