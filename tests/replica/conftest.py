# SPDX-License-Identifier: Apache-2.0
"""Pairs of replicators for the tests; nothing of them is left when a test ends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.replica.pair import Pair


@pytest.fixture(scope="session", autouse=True)
def real_fuse() -> None:
    """These tests mount. Nothing is skipped where that is impossible: it fails."""
    assert os.geteuid() == 0, "tests/replica needs root"
    assert os.path.exists("/dev/fuse"), "tests/replica needs /dev/fuse"


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Two nodes that have not been started."""
    two = Pair(tmp_path)
    try:
        yield two
    finally:
        two.stop()


@pytest.fixture
def synced(pair: Pair) -> Pair:
    """a primary, b its standby, everything on both."""
    pair.replicate()
    return pair


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A synced pair for all tests of a module that leave it synced."""
    two = Pair(tmp_path_factory.mktemp("pair"))
    try:
        two.replicate()
        yield two
    finally:
        two.stop()
