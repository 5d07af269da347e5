# SPDX-License-Identifier: Apache-2.0
"""`durability = "fsync"`: what databases rely on. They are the tests of the other mode."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.replica import test_applications, test_databases
from tests.replica.pair import Pair
from tests.replica.spawner import Spawner

test_postgresql = test_databases.test_postgresql_survives_the_death_of_its_node_under_load
test_sqlite_in_wal_mode = test_databases.test_sqlite_in_wal_mode_loses_no_commit
test_sqlite = test_applications.test_sqlite_survives_a_power_cut_with_every_commit
test_git = test_applications.test_git_works_on_the_mount


@pytest.fixture
def synced(caching: Pair) -> Pair:
    return caching


@pytest.fixture
def public_pair(spawner: Spawner) -> Iterator[Pair]:
    with tempfile.TemporaryDirectory(prefix="haoperator-") as name:
        base = Path(name)
        base.chmod(0o755)
        two = Pair(base, spawner, durability="fsync")
        try:
            two.replicate()
            yield two
        finally:
            two.stop()
