# SPDX-License-Identifier: Apache-2.0
"""Where the loads run, side by side on the same two disks."""

from __future__ import annotations

import contextlib
import filecmp
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.command import mounted
from tests.bench.gluster import gluster
from tests.replica.pair import Pair
from tests.replica.spawner import Spawner


@dataclass(frozen=True, slots=True)
class Place:
    """A directory to run loads in; with `peer` it is the bare limit and keeps a copy there."""

    name: str
    title: str
    path: Path
    peer: Path | None = None


@dataclass(frozen=True, slots=True)
class Mode:
    """One column of haoperator: settings of both nodes on top of what `Pair` has."""

    name: str
    title: str
    settings: dict[str, Any] = field(default_factory=dict)


MODES = (
    Mode("haoperator", "haoperator, `write`"),
    Mode("fsync", "haoperator, `fsync`", {"durability": "fsync"}),
)

GLUSTER: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("gluster", "GlusterFS, default", {}),
    ("gluster-sync", "GlusterFS, write-behind off", {"performance.write-behind": "off"}),
)
TITLES = {"raw": "raw ext4", "bare": "bare limit"}
TITLES |= {name: title for name, title, _ in GLUSTER} | {mode.name: mode.title for mode in MODES}


def _directories(disks: tuple[Path, Path], name: str) -> tuple[Path, Path]:
    ours, theirs = (point / name for point in disks)
    for directory in (ours, theirs):
        directory.mkdir()
        directory.chmod(0o755)
    return ours, theirs


@contextlib.contextmanager
def _replicated(base: Path, disks: tuple[Path, Path], mode: Mode) -> Iterator[Pair]:
    """A pair of replicators: a primary, b its standby, up to date."""
    homes = _directories(disks, mode.name)
    with contextlib.ExitStack() as stack:
        for node, home in zip("ab", homes, strict=True):
            point = base / mode.name / node
            point.mkdir(parents=True)
            stack.enter_context(mounted(point, "mount", "--bind", home, point))
        yield stack.enter_context(_running(base / mode.name, mode))


@contextlib.contextmanager
def _running(below: Path, mode: Mode) -> Iterator[Pair]:
    # ^C is for the benchmark alone: it cleans up, and for that the replicators must live.
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)
    spawner = Spawner()
    signal.signal(signal.SIGINT, interrupt)
    pair = Pair(below, spawner, detect_seconds=5.0)
    for node in (pair.a, pair.b):
        node.settings |= mode.settings
    try:
        pair.replicate()
        yield pair
    finally:
        pair.stop()
        spawner.close()


def require_equal(pair: Pair) -> None:
    """Raises RuntimeError unless a file that all rounds wrote to is the same on both nodes."""
    for node in (pair.a, pair.b):
        node.wait_stream("synced")
    ours, theirs = (node.backing for node in (pair.a, pair.b))
    for name in ("prepared", "prepared0"):
        if not filecmp.cmp(ours / name, theirs / name, shallow=False):
            raise RuntimeError("the copies differ: what was measured is worth nothing")


@contextlib.contextmanager
def places(base: Path, disks: tuple[Path, Path], wanted: set[str]) -> Iterator[list[Place]]:
    """Every place whose name is wanted; none of them is left afterwards.

    Where the block ends without an error, the copies of haoperator are compared.
    """
    with contextlib.ExitStack() as stack:
        found = []
        if "raw" in wanted:
            found.append(Place("raw", TITLES["raw"], _directories(disks, "raw")[0]))
        if "bare" in wanted:
            found.append(Place("bare", TITLES["bare"], *_directories(disks, "bare")))
        volumes = {name: options for name, _, options in GLUSTER if name in wanted}
        if volumes:
            points = stack.enter_context(gluster(base, disks, volumes))
            found += [Place(name, TITLES[name], points[name]) for name in volumes]
        pairs = []
        for mode in MODES:
            if mode.name in wanted:
                pair = stack.enter_context(_replicated(base, disks, mode))
                pairs.append(pair)
                found.append(Place(mode.name, mode.title, pair.a.path))
        yield found
        for pair in pairs:
            require_equal(pair)
