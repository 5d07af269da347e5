# SPDX-License-Identifier: Apache-2.0
"""Real software on the mount, and what is left of it when the primary dies."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.replica.pair import ROOT, Pair, wait_for
from tests.replica.trees import assert_equal_trees
from tests.replica.writer import Writer, lines_in

INSERTS = """
import sqlite3, sys
base = sqlite3.connect(sys.argv[1], isolation_level=None)
base.execute('pragma journal_mode=' + sys.argv[2])
base.execute('pragma synchronous=full')
base.execute('create table if not exists t (n integer primary key)')
n = 0
while True:
    n += 1
    base.execute('insert into t values (?)', (n,))
    print(n, flush=True)
"""


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_sqlite_survives_a_power_cut_with_every_commit(synced: Pair, journal: str) -> None:
    acknowledged = synced.a.base / "acknowledged"
    with open(acknowledged, "w") as output:
        inserting = subprocess.Popen(
            [sys.executable, "-c", INSERTS, str(synced.a.path / "base.db"), journal],
            stdout=output,
            stderr=subprocess.DEVNULL,
        )
    try:
        wait_for(lambda: acknowledged.read_text().count("\n") > 100, "inserts")
        synced.a.power_cut()
    finally:
        inserting.kill()
        inserting.wait()
    committed = acknowledged.read_text().split("\n")[:-1]
    synced.b.wait_stream("lost")
    synced.b.begin()
    base = sqlite3.connect(synced.b.path / "base.db")
    try:
        assert base.execute("pragma integrity_check").fetchone() == ("ok",)
        (count,) = base.execute("select count(*) from t").fetchone()
    finally:
        base.close()
    assert count >= len(committed)


def test_git_works_on_the_mount(synced: Pair) -> None:
    work = synced.a.path / "work"
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@x", "-C", str(work)]
    subprocess.run(["git", "init", "-q", str(work)], check=True)
    for source in sorted((ROOT / "haoperator" / "replica").glob("*.py")):
        (work / source.name).write_bytes(source.read_bytes())
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "all"], check=True)
    subprocess.run([*git, "gc", "-q"], check=True)
    subprocess.run([*git, "fsck", "--strict"], check=True, capture_output=True)
    assert_equal_trees(synced.a.backing, synced.b.backing)


def test_standby_killed_again_and_again_under_writers(synced: Pair) -> None:
    """SIGKILL of the standby's replicator alone: it returns, nothing is lost, none waits long."""
    a, b = synced.a, synced.b
    with Writer(a.path / "one") as one, Writer(a.path / "two") as two:
        for _ in range(4):
            b.kill()
            b.start(restored=True)
            b.call("become_secondary")
            a.wait_stream("synced")
            one.advances()
            two.advances()
    assert lines_in(b.path / "one") == one.acknowledged
    assert lines_in(b.path / "two") == two.acknowledged
    assert_equal_trees(a.backing, b.backing)


def test_primary_and_standby_alternate_by_power_cuts(synced: Pair) -> None:
    """What was acknowledged on any of them is on the next."""
    primary, standby = synced.a, synced.b
    for turn in range(3):
        path = Path(f"log-{turn}")
        with Writer(primary.path / path) as writer:
            writer.advances()
            primary.power_cut()
        standby.wait_stream("lost")
        standby.begin()
        assert lines_in(standby.path / path) >= writer.acknowledged
        primary.boot()
        standby.wait_stream("synced")
        primary, standby = standby, primary
    assert_equal_trees(primary.backing, standby.backing)
