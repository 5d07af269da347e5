# SPDX-License-Identifier: Apache-2.0
"""What is done in every place: the list of loads, and how each is run."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import archive
from tests.bench.command import run
from tests.bench.places import Place
from tests.bench.postgres import Server


@dataclass
class Tools:
    """What the loads need: made once, outside of the measured time."""

    loads: Path
    """The compiled loads.c."""
    tar: Path
    servers: Mapping[str, Server] = field(default_factory=dict)
    _turns: itertools.count[int] = field(default_factory=itertools.count)

    def compiled(self, name: str, place: Place) -> float:
        """One of the loads of loads.c."""
        peer = () if place.peer is None else (place.peer,)
        return float(run(self.loads, name, place.path, *peer))

    def untar(self, place: Place) -> float:
        """Files a second into an empty directory."""
        target = place.path / f"untar-{next(self._turns)}"
        run("mkdir", target)
        start = time.monotonic()
        run("tar", "-xf", self.tar, "-C", target, limit=300.0)
        seconds = time.monotonic() - start
        return archive.FILES / seconds

    def inserts(self, place: Place) -> float:
        """SQLite transactions a second."""
        return float(run(sys.executable, Path(__file__).with_name("inserts.py"), place.path))

    def pgbench(self, place: Place) -> float:
        """Transactions a second of PostgreSQL's own benchmark."""
        return self.servers[place.name].measure()


@dataclass(frozen=True, slots=True)
class Load:
    """One row of the table; `bare` says that the bare limit is measured for it too."""

    name: str
    title: str
    unit: str
    group: str
    bare: bool = False
    most_rounds: int = 100
    """Of what takes long, fewer are enough."""
    run: Callable[[Tools, str, Place], float] = lambda tools, name, place: tools.compiled(
        name, place
    )


LOADS = (
    Load("write", "4 KiB sequential write, 1 writer", "op/s", "small writes", bare=True),
    Load("write8", "4 KiB sequential write, 8 writers", "op/s", "small writes", bare=True),
    Load("synced", "4 KiB random write + fdatasync, 1 writer", "op/s", "small writes", bare=True),
    Load("synced8", "4 KiB random write + fdatasync, 8 writers", "op/s", "small writes", bare=True),
    Load("large", "1 MiB sequential write, one fsync", "MB/s", "large blocks and reads"),
    Load("read", "1 MiB sequential read, first time", "MB/s", "large blocks and reads"),
    Load("cached", "4 KiB random read, cached", "op/s", "large blocks and reads"),
    Load("uncached", "4 KiB random read, uncached", "op/s", "large blocks and reads"),
    Load("files", "create + write 4 KiB + fsync + close", "files/s", "files and databases"),
    Load("untar", "untar of 2,000 files", "files/s", "files and databases",
         most_rounds=3, run=lambda tools, _, place: tools.untar(place)),
    Load("sqlite", "SQLite inserts, WAL, FULL", "op/s", "files and databases",
         run=lambda tools, _, place: tools.inserts(place)),
    Load("pgbench", "pgbench -c4", "tps", "files and databases",
         run=lambda tools, _, place: tools.pgbench(place)),
)  # fmt: skip
