# SPDX-License-Identifier: Apache-2.0
"""`durability = "fsync"`, as systemd stops and restarts the replicator, and asks for it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from haoperator.replica.service import settings_of
from tests.replica.pair import Pair
from tests.replica.spawner import Spawner
from tests.replica.test_service import ServiceNode
from tests.replica.trees import assert_equal_trees
from tomlconfig import parse
from tomlconfig.model import Durability


@pytest.fixture
def services(tmp_path: Path, spawner: Spawner) -> Iterator[Pair]:
    two = Pair(tmp_path, spawner, make_node=ServiceNode, durability="fsync")
    try:
        two.replicate()
        yield two
    finally:
        two.stop()


def test_what_was_not_synced_is_on_both_nodes_when_the_service_has_stopped(services: Pair) -> None:
    a, b = services.a, services.b
    fd = os.open(a.path / "file", os.O_CREAT | os.O_RDWR)
    try:
        os.write(fd, b"x" * 500_000)
        assert (b.backing / "file").stat().st_size == 0
        assert a.process is not None
        a.process.send_signal(signal.SIGTERM)
        a.process.wait()
        assert_equal_trees(a.backing, b.backing)
        assert (b.backing / "file").read_bytes() == b"x" * 500_000
        a.start(restored=True)  # as `systemctl restart` does
        assert isinstance(a, ServiceNode)
        a.become_primary("")
        a.wait_stream("synced")
        os.write(fd, b"y" * 500_000)
        os.fsync(fd)
    finally:
        os.close(fd)
    assert (b.backing / "file").read_bytes() == b"x" * 500_000 + b"y" * 500_000


def test_every_directory_has_its_own_durability() -> None:
    text = b"""
[cluster]
name = "shop"
[node.a]
[node.b]
[link.lan]
a = "10.0.0.1"
b = "10.0.0.2"
[replicate.one]
path = "/srv/one"
durability = "fsync"
[replicate.two]
path = "/srv/two"
durability = "write"
[replicate.three]
path = "/srv/three"
"""
    settings = settings_of(parse(text, Path("cluster.toml")), "a", b"key")
    assert [(each.name, each.path, each.durability) for each in settings.directories] == [
        ("one", "/srv/one", Durability.FSYNC),
        ("two", "/srv/two", Durability.WRITE),
        ("three", "/srv/three", Durability.WRITE),
    ]
