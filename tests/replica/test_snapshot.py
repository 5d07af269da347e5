# SPDX-License-Identifier: Apache-2.0
"""A snapshot before a resync is something to go back to, on file systems with reflinks."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.replica.pair import Pair, wait_for
from tests.replica.spawner import Spawner
from tests.replica.test_resync import MIB, fill, leave_behind
from tests.replica.test_roles import fresh
from tests.replica.trees import assert_equal_trees, differences, tree_of

SIZES = {"btrfs": 256 * MIB, "xfs": 320 * MIB, "ext4": 256 * MIB}
OPTIONS = {"btrfs": ["-q"], "xfs": ["-q"], "ext4": ["-q", "-F"]}


def run(*command: str | Path) -> None:
    subprocess.run(list(map(str, command)), check=True, timeout=60, capture_output=True)


@pytest.fixture
def on(request: pytest.FixtureRequest, tmp_path: Path, spawner: Spawner) -> Iterator[Pair]:
    """A pair whose nodes each have a file system of the asked kind."""
    kind: str = request.param
    places = [tmp_path / "a", tmp_path / "b"]
    mounted: list[Path] = []
    pair: Pair | None = None
    try:
        for place in places:
            image = tmp_path / f"{place.name}.img"
            image.touch()
            os.truncate(image, SIZES[kind])
            run(f"mkfs.{kind}", *OPTIONS[kind], image)
            place.mkdir()
            run("mount", "-o", "loop", image, place)
            mounted.append(place)
        pair = Pair(tmp_path, spawner)
        for node in (pair.a, pair.b):
            node.settings["snapshot_before_resync"] = True
        yield pair
    finally:
        if pair is not None:
            pair.stop()
        for place in mounted:
            run("umount", "--lazy", place)


reflinks = pytest.mark.parametrize("on", ["btrfs", "xfs"], indirect=True)


def resync_that_does_not_end(pair: Pair) -> None:
    """a dies in the middle of the resync of b."""
    a, b = pair.a, pair.b
    leave_behind(pair)
    (a.path / "d1" / "new").write_text("newer")
    (a.path / "d2").rename(a.path / "moved")
    for number in range(12):
        (a.path / f"file-{number}").write_bytes(os.urandom(4 * MIB))
    b.boot()
    wait_for(lambda: a.state["directories"][0]["resync_copied_bytes"] > 0, "it has begun")
    wait_for(lambda: b.state["directories"][0]["resync_copied_bytes"] > 0, "b knows of it")
    a.power_cut()
    b.wait_stream("disconnected")
    assert not b.record["consistent"]


@reflinks
def test_forced_primary_goes_back_to_the_snapshot(on: Pair) -> None:
    b = on.b
    fill(on.a.path)
    on.replicate()
    before = tree_of(b.backing)
    resync_that_does_not_end(on)
    with pytest.raises(RuntimeError, match="mixture"):
        b.call("become_primary", generation=fresh())
    assert b.state["directories"][0]["snapshot_taken_at"]
    b.call("become_primary", generation=fresh(), force=True)
    assert b.record["consistent"]
    assert not differences(before, tree_of(b.backing))
    assert sorted(os.listdir(b.path)) == sorted(os.listdir(b.backing))
    (b.path / "d1" / "e1" / "more").write_text("it can be written")


@reflinks
def test_snapshot_goes_when_the_resync_is_complete(on: Pair) -> None:
    fill(on.a.path)
    on.replicate()
    leave_behind(on)
    (on.a.path / "new").write_text("new")
    on.b.boot()
    on.a.wait_stream("synced")
    on.b.wait_stream("synced")
    assert_equal_trees(on.a.backing, on.b.backing)
    place = on.b.path.parent / ".haoperator-data"
    wait_for(lambda: not place.exists(), "the snapshot is gone")
    assert "snapshot taken before the resync" in on.b.log_text()


@reflinks
def test_restart_in_the_middle_keeps_the_snapshot_from_before(on: Pair) -> None:
    a, b = on.a, on.b
    fill(a.path)
    on.replicate()
    before = tree_of(b.backing)
    resync_that_does_not_end(on)
    b.power_cut()
    b.boot()
    b.call("become_primary", generation=fresh(), force=True)
    assert not differences(before, tree_of(b.backing))
    a.boot()
    b.wait_stream("alone", "resync", "synced")


@pytest.mark.parametrize("on", ["ext4"], indirect=True)
def test_without_reflinks_it_says_so_and_resynchronises(on: Pair) -> None:
    fill(on.a.path)
    (on.b.path / "old").write_text("something that would have to be kept")
    on.replicate()
    assert "no snapshot before the resync" in on.b.log_text()
    assert on.b.state["directories"][0]["snapshot_taken_at"] is None
    assert_equal_trees(on.a.backing, on.b.backing)
