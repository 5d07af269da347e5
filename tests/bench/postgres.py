# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL with its data in a place, and pgbench on it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from tests.bench.command import run

BIN = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/usr/lib/postgresql"))
CLIENTS = 4
SECONDS = 3
SCALE = 4
QUIET = "-c listen_addresses='' -c autovacuum=off -c checkpoint_timeout=1d -c max_wal_size=8GB"
"""Nothing but the load writes: what runs in the background would hit one place and not another."""


class Server:
    """A server that has been started on one data directory."""

    def __init__(self, data: Path, sockets: Path, port: int) -> None:
        self._data, self._sockets, self._port = data, sockets, str(port)

    def start(self) -> None:
        options = f"-p {self._port} -k {self._sockets} {QUIET}"
        log = self._sockets / f"log-{self._port}"
        self._control("-l", log, "-o", options, "-w", "start")

    def stop(self, how: str = "immediate") -> None:
        self._control("-m", how, "stop")

    def _control(self, *options: str | Path) -> None:
        run(BIN / "pg_ctl", "-s", "-D", self._data, *options, user="postgres")

    def ask(self, program: str, *options: str) -> str:
        where = ("-h", self._sockets, "-p", self._port)
        return run(BIN / program, *where, *options, user="postgres")

    def measure(self) -> float:
        """Transactions per second."""
        self.ask("psql", "-qX", "-c", "checkpoint", "postgres")
        said = self.ask("pgbench", "-n", f"-c{CLIENTS}", f"-T{SECONDS}", "postgres")
        found = re.search(r"^tps = ([0-9.]+) \(without", said, re.MULTILINE)
        if not found:
            raise RuntimeError(f"pgbench said: {said}")
        return float(found[1])


@contextlib.contextmanager
def servers(base: Path, at: list[Path]) -> Iterator[list[Server]]:
    """A running server for each directory: copies of one cluster that was made once."""
    template, sockets = base / "pg", base / "sockets"
    for directory in (template, sockets):
        directory.mkdir()
        run("chown", "postgres:postgres", directory)
    run("chmod", "700", template)
    run(BIN / "initdb", "--auth=trust", "--pgdata", template, "--no-sync", user="postgres")
    first = Server(template, sockets, 15431)
    first.start()
    try:
        first.ask("pgbench", "-i", "-q", "-s", str(SCALE), "postgres")
    finally:
        first.stop("fast")
    with contextlib.ExitStack() as stack:
        started = []
        for n, directory in enumerate(at):
            run("cp", "-a", template, directory / "pg", limit=300.0)
            server = Server(directory / "pg", sockets, 15432 + n)
            server.start()
            stack.callback(server.stop)
            started.append(server)
        yield started
