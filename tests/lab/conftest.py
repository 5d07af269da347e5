# SPDX-License-Identifier: Apache-2.0
"""One lab and one cluster for all scenarios, back in order before each of them."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .bus import BusRecord, recording
from .cluster import Pair
from .command import LabError
from .customer import Customer, customer
from .lab import Lab
from .place import BUILD
from .standing import Standing

EVIDENCE = BUILD / "lab"
KEEP = bool(os.environ.get("HAOPERATOR_LAB_KEEP"))
"""Leaves the nodes running after the tests, to look around in them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.root)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """The lab, without anything in it. Set up by `cluster`."""
    lab = Lab()
    yield lab
    if KEEP:
        lab.ledger.note_owner(None)
    else:
        lab.down()


@pytest.fixture(scope="session")
def cluster(lab: Lab) -> Standing:
    """The cluster, once for all scenarios."""
    cluster = Standing(lab)
    try:
        cluster.new(owned=True)
    except LabError:
        save(cluster, EVIDENCE / "set-up")
        raise
    return cluster


@pytest.fixture
def directory(request: pytest.FixtureRequest) -> Path:
    """Where a scenario leaves its logs, empty at its start: build/lab/NAME."""
    path = EVIDENCE / re.sub(r"[^A-Za-z0-9_-]+", "-", request.node.name)
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


@pytest.fixture
def pair(cluster: Standing, directory: Path, request: pytest.FixtureRequest) -> Iterator[Pair]:
    """The cluster, PRIM and SECOND. What a scenario leaves behind is mended after it."""
    if not cluster.in_order():
        save(cluster, directory / "before")
        cluster.new(owned=True)
    failed_before = request.session.testsfailed
    yield cluster
    if request.session.testsfailed > failed_before:
        save(cluster, directory)


@pytest.fixture
def record(pair: Pair, directory: Path) -> Iterator[BusRecord]:
    """The signals of both nodes."""
    with recording(pair.lab, directory) as record:
        yield record


@pytest.fixture
def client(pair: Pair, directory: Path) -> Iterator[Customer]:
    """A client that counts through the virtual IP, and is being served."""
    with customer(pair.lab, directory / "client.log") as client:
        client.wait_acks(50)
        yield client
        report = client.report()
    if report["lost"]:
        save(pair, directory)
    assert report["lost"] == 0, f"{report['lost']} acknowledged writes are lost: {client.log}"


def save(pair: Pair, directory: Path) -> None:
    """Both journals and what the nodes say of themselves; never hides the failure itself."""
    try:
        pair.save_evidence(directory)
    except (LabError, OSError) as err:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "incomplete.txt").write_text(f"{err}\n")
