# SPDX-License-Identifier: Apache-2.0
"""PostgreSQL under pgbench, through the virtual IP."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from .cluster import Pair
from .command import LabError, clean_environment, run
from .customer import VIP
from .debian_image import POSTGRES
from .node import Node
from .waiting import until
from .workshop import in_container

AS_POSTGRES = ["setpriv", f"--reuid={POSTGRES}", f"--regid={POSTGRES}", "--clear-groups"]
SERVER = [*AS_POSTGRES, "postgres", "-D", "/data/postgres"]
INITDB = f"""
set -e
mkdir -m 700 /data/postgres
chown {POSTGRES}:{POSTGRES} /data/postgres
{" ".join(AS_POSTGRES)} initdb -D /data/postgres -U postgres --auth=trust --locale=C --encoding=UTF8
echo 'host all all all trust' >>/data/postgres/pg_hba.conf
cat >>/data/postgres/postgresql.conf
"""
# Durable as it comes; the rest is that it is small, and that it rests when nobody uses it.
POSTGRESQL_CONF = """
listen_addresses = '*'
unix_socket_directories = ''
shared_buffers = 32MB
max_wal_size = 64MB
min_wal_size = 32MB
wal_level = minimal
max_wal_senders = 0
autovacuum = off
"""


class Postgres:
    """pgbench through the virtual IP, with its own bookkeeping as the first check."""

    CLIENTS = 4
    SUMS = (
        "select (select sum(abalance) from pgbench_accounts),"
        " (select sum(tbalance) from pgbench_tellers),"
        " (select sum(bbalance) from pgbench_branches),"
        " (select coalesce(sum(delta), 0) from pgbench_history)"
    )
    COUNT = "select count(*) from pgbench_history"
    # A client that waits for an answer of a dead server learns of it by a keepalive.
    ADDRESS = f"host={VIP} user=postgres connect_timeout=2 keepalives_idle=1 keepalives_interval=1"

    def __init__(self, pair: Pair, directory: Path) -> None:
        self.pair = pair
        self.log = directory / "pgbench.log"
        self.before = 0
        self.load: subprocess.Popen[bytes] | None = None

    def program(self, name: str, *words: str) -> tuple[str, ...]:
        binary = f"/usr/lib/postgresql/15/bin/{name}"
        return self.pair.lab.in_client(binary, *words)

    def ask(self, question: str) -> str:
        asked = self.program("psql", "-AtXqd", self.ADDRESS, "-c", question)
        return run(*asked, timeout=60, check=False).stdout.strip()

    def answers(self) -> None:
        until(lambda: self.ask("select 1") == "1", "PostgreSQL at the virtual IP", within=90)

    def start(self) -> None:
        self.answers()
        run(*self.program("pgbench", "-i", "-q", "-s", "1", self.ADDRESS), timeout=120)
        self.ask("create extension if not exists amcheck")
        self.before = int(self.ask(self.COUNT))
        bench = ("pgbench", "-n", "-T", "600", "-j", "2", "-c", str(self.CLIENTS), self.ADDRESS)
        with self.log.open("wb") as out:
            self.load = subprocess.Popen(
                self.program(*bench),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=clean_environment(),
            )

    def wait(self) -> None:
        until(
            lambda: int(self.ask(self.COUNT) or 0) >= self.before + 300,
            "300 transactions",
            within=90,
            hint=str(self.log),
        )

    def check(self, node: Node) -> str:
        assert self.load
        self.answers()
        self.load.wait(90)
        told = re.search(r"actually processed: (\d+)", self.log.read_text())
        if not told:
            raise LabError("pgbench does not say how much was committed", str(self.log))
        committed = int(told.group(1))
        there = int(self.ask(self.COUNT)) - self.before
        if not committed <= there <= committed + self.CLIENTS:
            raise LabError(f"{there} transactions are there, {committed} were committed")
        if len(set(self.ask(self.SUMS).split("|"))) != 1:
            raise LabError(f"the balances do not agree: {self.ask(self.SUMS)}")
        local = ("-h", "127.0.0.1", "-U", "postgres")
        amcheck = ("pg_amcheck", *local, "--heapallindexed", "--parent-check", "postgres")
        node.exec(*in_container("postgres", *amcheck), timeout=120)
        self.ask("checkpoint")
        return f"{committed} transactions"

    def close(self) -> None:
        if self.load:
            self.load.kill()
            self.load.wait()
