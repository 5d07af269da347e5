# SPDX-License-Identifier: Apache-2.0
"""Pairs of replicators for the tests; nothing of them is left when a test ends."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.replica.images import DiskPair
from tests.replica.pair import Pair, abort_all
from tests.replica.spawner import Spawner

MOST_SECONDS = 60


@pytest.fixture(scope="session", autouse=True)
def real_fuse() -> None:
    """These tests mount. Nothing is skipped where that is impossible: it fails."""
    assert os.geteuid() == 0, "tests/replica needs root"
    assert os.path.exists("/dev/fuse"), "tests/replica needs /dev/fuse"


@pytest.fixture(scope="session")
def spawner() -> Iterator[Spawner]:
    helper = Spawner()
    yield helper
    helper.close()


@pytest.fixture(autouse=True)
def never_for_ever() -> Iterator[None]:
    """A test that hangs in a mount whose server does not answer cannot even be interrupted.

    After a while the mounts of all pairs are aborted: what hangs gets ENOTCONN.
    """
    timer = threading.Timer(MOST_SECONDS, abort_all)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@pytest.fixture
def pair(tmp_path: Path, spawner: Spawner) -> Iterator[Pair]:
    """Two nodes that have not been started."""
    two = Pair(tmp_path, spawner)
    try:
        yield two
    finally:
        two.stop()


@pytest.fixture
def on_disks(tmp_path: Path, spawner: Spawner) -> Iterator[DiskPair]:
    """A pair to be made on small disks of its own."""
    maker = DiskPair(tmp_path, spawner)
    try:
        yield maker
    finally:
        maker.close()


@pytest.fixture
def synced(pair: Pair) -> Pair:
    """a primary, b its standby, everything on both."""
    pair.replicate()
    return pair


@pytest.fixture
def caching(tmp_path: Path, spawner: Spawner) -> Iterator[Pair]:
    """The same as `synced`, with the kernels' write caches on."""
    two = Pair(tmp_path, spawner, durability="fsync")
    try:
        two.replicate()
        yield two
    finally:
        two.stop()


@pytest.fixture(scope="module")
def shared_caching(tmp_path_factory: pytest.TempPathFactory, spawner: Spawner) -> Iterator[Pair]:
    """The same as `shared`, with the kernels' write caches on. It waits long: fsync is slow."""
    two = Pair(tmp_path_factory.mktemp("caching"), spawner, durability="fsync", detect_seconds=10.0)
    try:
        two.replicate()
        yield two
    finally:
        two.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, spawner: Spawner) -> Iterator[Pair]:
    """A synced pair for all tests of a module that leave it synced."""
    two = Pair(tmp_path_factory.mktemp("pair"), spawner, detect_seconds=10.0)
    try:
        two.replicate()
        yield two
    finally:
        two.stop()
