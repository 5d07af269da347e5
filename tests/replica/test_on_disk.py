# SPDX-License-Identifier: Apache-2.0
"""When marks are retired, what they named is on both disks, wherever it came from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.replica.images import MIB, DiskPair
from tests.replica.pair import Pair
from tests.replica.spawner import Spawner


@pytest.fixture
def on_disks(tmp_path: Path, spawner: Spawner) -> Iterator[tuple[Pair, DiskPair]]:
    """A synced pair whose nodes have a disk each."""
    made = DiskPair(tmp_path / "pair", spawner)
    try:
        for name in ("a", "b"):
            made.disk(name, 64 * MIB)
        yield made.replicate(), made
    finally:
        made.close()


def test_what_a_standby_received_is_on_its_disk_when_it_resynchronised_the_other(
    on_disks: tuple[Pair, DiskPair], tmp_path: Path
) -> None:
    """Else the other would have it alone after a power cut of this one, and no mark say so."""
    pair, made = on_disks
    data = os.urandom(300_000)
    (pair.a.path / "received").write_bytes(data)
    pair.a.power_cut()
    pair.b.wait_stream("lost")
    pair.b.begin()
    pair.a.boot()
    pair.b.wait_stream("synced")
    for name in ("a", "b"):
        with made.disks[name].after_a_power_cut(tmp_path / f"{name}-then"):
            assert (tmp_path / f"{name}-then" / "received").read_bytes() == data


def test_what_was_written_is_on_both_disks_after_a_checkpoint(
    on_disks: tuple[Pair, DiskPair], tmp_path: Path
) -> None:
    pair, made = on_disks
    data = os.urandom(300_000)
    (pair.a.path / "written").write_bytes(data)
    pair.a.call("checkpoint")
    for name in ("a", "b"):
        with made.disks[name].after_a_power_cut(tmp_path / f"{name}-then"):
            assert (tmp_path / f"{name}-then" / "written").read_bytes() == data
