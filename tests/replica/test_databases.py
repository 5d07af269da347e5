# SPDX-License-Identifier: Apache-2.0
"""Real databases on a replicated directory, through a takeover: what was committed is there."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.replica.pair import Node, Pair, wait_for
from tests.replica.spawner import Spawner

BIN = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@pytest.fixture
def public_pair(spawner: Spawner) -> Iterator[Pair]:
    """A pair in directories that another user can reach: PostgreSQL refuses to run as root."""
    with tempfile.TemporaryDirectory(prefix="haoperator-") as name:
        base = Path(name)
        base.chmod(0o755)
        two = Pair(base, spawner)
        try:
            two.replicate()
            yield two
        finally:
            two.stop()


def as_postgres(*command: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["runuser", "-u", "postgres", "--", *map(str, command)],
        capture_output=True,
        text=True,
        timeout=50,
        check=check,
        cwd="/",
    )


class Server:
    """PostgreSQL with its data in a replicated directory."""

    def __init__(self, node: Node, port: int) -> None:
        self.data = node.path / "pg"
        self.port = str(port)

    def create(self) -> None:
        self.data.mkdir(mode=0o700)
        user = pwd.getpwnam("postgres")
        os.chown(self.data, user.pw_uid, user.pw_gid)
        as_postgres(BIN[-1] / "initdb", "--auth=trust", "--pgdata", self.data)

    def start(self) -> None:
        options = f"-p {self.port} -c listen_addresses='' -k {self.sockets}"
        log = self.sockets / "log"
        as_postgres(BIN[-1] / "pg_ctl", "-D", self.data, "-l", log, "-o", options, "-w", "start")

    def stop(self) -> None:
        as_postgres(BIN[-1] / "pg_ctl", "-D", self.data, "-m", "immediate", "stop", check=False)

    @property
    def sockets(self) -> Path:
        directory = Path(tempfile.gettempdir()) / f"haoperator-pg-{self.port}"
        directory.mkdir(exist_ok=True)
        directory.chmod(0o777)
        return directory

    def run(self, program: str, *options: str) -> subprocess.CompletedProcess[str]:
        return as_postgres(BIN[-1] / program, "-h", self.sockets, "-p", self.port, *options)

    def answer(self, query: str) -> str:
        return self.run("psql", "-AtX", "-c", query, "postgres").stdout.strip()


def test_postgresql_survives_the_death_of_its_node_under_load(public_pair: Pair) -> None:
    assert BIN, "this test needs Debian's package postgresql"
    a, b = public_pair.a, public_pair.b
    first, second = Server(a, 15432), Server(b, 15433)
    first.create()
    first.start()
    try:
        first.run("pgbench", "-i", "-q", "-s", "1", "postgres")
        load = subprocess.Popen(
            ["runuser", "-u", "postgres", "--", str(BIN[-1] / "pgbench"), "-h", str(first.sockets),
             "-p", first.port, "-c4", "-T30", "-n", "postgres"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
        )  # fmt: skip
        wait_for(
            lambda: int(first.answer("select count(*) from pgbench_history")) > 200, "some load"
        )
        told = int(first.answer("select count(*) from pgbench_history"))
        a.power_cut()
        load.wait(timeout=50)
    finally:
        first.stop()
    b.begin()
    with contextlib.suppress(FileNotFoundError):
        (second.data / "postmaster.pid").unlink()
    second.start()
    try:
        assert int(second.answer("select count(*) from pgbench_history")) >= told
        balances = second.answer(
            "select (select sum(bbalance) from pgbench_branches),"
            " (select sum(tbalance) from pgbench_tellers),"
            " (select sum(abalance) from pgbench_accounts),"
            " (select sum(delta) from pgbench_history)"
        ).split("|")
        assert len(set(balances)) == 1, balances
        second.run("psql", "-qX", "-c", "create extension amcheck", "postgres")
        second.run("pg_amcheck", "--heapallindexed", "postgres")
    finally:
        second.stop()
        for server in (first, second):
            shutil.rmtree(server.sockets, ignore_errors=True)


def test_sqlite_in_wal_mode_loses_no_commit(synced: Pair) -> None:
    a, b = synced.a, synced.b
    with contextlib.closing(sqlite3.connect(a.path / "shop.db", isolation_level=None)) as shop:
        assert shop.execute("pragma journal_mode=wal").fetchone() == ("wal",)
        shop.execute("pragma synchronous=full")
        shop.execute("create table sold (item integer primary key, what text)")
        for item in range(300):
            shop.execute("insert into sold values (?, ?)", (item, "x" * (item % 97)))
        a.power_cut()
    b.wait_stream("lost")
    b.begin()
    with contextlib.closing(sqlite3.connect(b.path / "shop.db")) as shop:
        assert shop.execute("pragma integrity_check").fetchone() == ("ok",)
        assert shop.execute("select count(*) from sold").fetchone() == (300,)
