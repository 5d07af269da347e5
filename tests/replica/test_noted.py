# SPDX-License-Identifier: Apache-2.0
"""A resync compares what was noted, and little more; and that is always enough."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from haoperator.replica.marks import ZONE
from tests.replica.pair import Node, Pair
from tests.replica.test_random import Tree
from tests.replica.test_resync import MIB, come_back, fill, leave_behind
from tests.replica.test_roles import fresh
from tests.replica.trees import assert_equal_trees

BLOCK = 65_536
TORMENTS = int(os.environ.get("TORMENTS", "8"))
TURNS = 4
SEED = int(os.environ.get("TORMENT_SEED", str(time.time_ns() % 1_000_000)))


def retire_everything(node: Node) -> None:
    """Two periods in which nothing happens: the log holds nothing more."""
    for _ in range(3):
        node.call("checkpoint")


def progress(node: Node) -> tuple[int, int]:
    (directory,) = node.state["directories"]
    return directory["resync_compared_bytes"], directory["resync_copied_bytes"]


def change(path: Path, offset: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.fixture
def grown(synced: Pair) -> Pair:
    """A synced pair with a large file and many small ones, of which nothing is hot."""
    fill(synced.a.path, files=200)
    (synced.a.path / "large").write_bytes(os.urandom(64 * MIB))
    retire_everything(synced.a)
    return synced


def test_after_an_absence_only_changed_blocks_are_compared(grown: Pair) -> None:
    a = grown.a
    leave_behind(grown)
    change(a.path / "large", 10 * MIB, b"changed")
    change(a.path / "large", 40 * MIB + BLOCK - 4, b"over the end of a block")
    (a.path / "d3" / "new").write_text("new")
    come_back(grown)
    compared, copied = progress(a)
    assert copied <= 3 * BLOCK + 3
    # the first zone of the large file, the blocks, and the small one
    assert compared <= ZONE + 3 * BLOCK + 3


def test_block_of_a_file_of_20_gigabytes(synced: Pair) -> None:
    a, b = synced.a, synced.b
    (a.path / "sparse").touch()
    os.truncate(a.path / "sparse", 20 << 30)
    change(a.path / "sparse", 15 << 30, b"an island")
    retire_everything(a)
    leave_behind(synced)
    change(a.path / "sparse", 17 << 30, b"another")
    b.boot()
    a.wait_stream("synced")
    for offset in (15 << 30, 17 << 30):
        with open(a.backing / "sparse", "rb") as ours, open(b.backing / "sparse", "rb") as theirs:
            ours.seek(offset)
            theirs.seek(offset)
            assert ours.read(BLOCK) == theirs.read(BLOCK)
    compared, copied = progress(a)
    assert (compared, copied) == (ZONE + BLOCK, BLOCK)


def test_what_moved_is_compared_and_not_copied(grown: Pair) -> None:
    a = grown.a
    (a.path / "deep" / "er").mkdir(parents=True)
    (a.path / "deep" / "er" / "big").write_bytes(os.urandom(9 * MIB))
    retire_everything(a)
    leave_behind(grown)
    (a.path / "deep").rename(a.path / "d1" / "moved")
    (a.path / "large").rename(a.path / "d2" / "huge")
    os.link(a.path / "d2" / "huge", a.path / "huge-too")
    come_back(grown)
    compared, copied = progress(a)
    assert copied == 0
    assert compared <= 80 * MIB


@pytest.mark.parametrize("forgotten", [False, True])
def test_file_that_lost_the_name_by_which_it_was_written(grown: Pair, forgotten: bool) -> None:
    a = grown.a
    (a.path / "one").write_text("one file")
    os.link(a.path / "one", a.path / "d1" / "two")
    os.link(a.path / "one", a.path / "d2" / "three")
    retire_everything(a)
    leave_behind(grown)
    if forgotten:  # a new process knows the file by the name that is looked up
        a.kill()
        a.start(restored=True)
        a.call("become_primary", generation="")
        Path("/proc/sys/vm/drop_caches").write_text("2")
    change(a.path / "one", 0, b"two")
    (a.path / "one").unlink()
    (a.path / "other").touch()
    (a.path / "other").rename(a.path / "d1" / "two")
    come_back(grown)
    assert (grown.b.backing / "d2" / "three").read_text() == "two file"


def test_power_cut_of_the_standby_costs_the_hot_zones(grown: Pair, tmp_path: Path) -> None:
    a, b = grown.a, grown.b
    disk = Disk(b, tmp_path / "disk-b")
    disk.now()
    change(a.path / "large", 21 * MIB, b"x" * 10_000)
    (a.path / "hot").write_text("hot")
    b.power_cut()
    disk.lose_cache()
    a.wait_stream("held")
    a.call("continue_alone", generation=fresh())
    come_back(grown)
    compared, copied = progress(a)
    assert copied <= BLOCK + 3
    assert compared <= 2 * ZONE + 3


def test_power_cut_of_the_primary_costs_the_hot_zones(grown: Pair, tmp_path: Path) -> None:
    a, b = grown.a, grown.b
    disk = Disk(a, tmp_path / "disk-a")
    disk.now()
    change(a.path / "large", 21 * MIB, b"x" * 10_000)
    (a.path / "d4" / "hot").write_text("hot")
    a.power_cut()
    disk.lose_cache()
    b.wait_stream("lost")
    b.begin()
    change(b.path / "large", 50 * MIB, b"since then")
    a.boot()
    b.wait_stream("synced")
    assert_equal_trees(a.backing, b.backing)
    compared, copied = progress(b)
    assert copied <= 2 * BLOCK + 3
    # what a noted of a directory is all its names
    names = sum(file.stat().st_size for file in (a.backing / "d4").rglob("*") if file.is_file())
    assert compared <= 3 * ZONE + names


def test_unnoted_difference_in_the_way_leads_to_a_whole_comparison(grown: Pair) -> None:
    a, b = grown.a, grown.b
    leave_behind(grown)
    (b.path / "large").unlink()  # by hand, below where the mount was
    change(a.path / "large", 0, b"noted")
    come_back(grown)
    compared, _ = progress(a)
    assert compared > 64 * MIB


def test_lost_intent_log_leads_to_a_whole_comparison(grown: Pair) -> None:
    a, b = grown.a, grown.b
    leave_behind(grown)
    Path(b.settings["record_path"]).with_name("intent-log").unlink()
    come_back(grown)
    compared, _ = progress(a)
    assert compared > 64 * MIB


class Disk:
    """What the disk of a node holds: its tree as of the last time that all of it was synced."""

    def __init__(self, node: Node, copy: Path) -> None:
        self.node = node
        self.copy = copy

    def now(self) -> None:
        if self.copy.exists():
            shutil.rmtree(self.copy)
        _copy_tree(self.node.backing, self.copy)

    def lose_cache(self) -> None:
        """After the node's power is gone: everything newer is gone, too."""
        root = self.node.path
        for entry in root.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        _copy_tree(self.copy, root)


def _copy_tree(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    ours = os.fspath(source).replace("/proc/self/", f"/proc/{os.getpid()}/")
    command = ["cp", "-a", "--sparse=always", f"{ours}/.", os.fspath(target)]
    subprocess.run(command, check=True, timeout=60)


class Torment:
    """Two nodes that lose power, streams and processes at random while one of them writes."""

    def __init__(self, pair: Pair, base: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.pair = pair
        self.primary, self.standby = pair.a, pair.b
        self.disks = {n: Disk(n, base / f"disk-{n.name}") for n in (pair.a, pair.b)}
        self.told: list[str] = []
        self.works = 0

    def work(self, most: int = 25) -> None:
        """Random operations; files get larger than a zone now and then."""
        tree = Tree(self.primary.path)
        try:
            for _ in range(self.chance.randrange(most)):
                tree.run(self._operation())
        finally:
            tree.close()

    def _operation(self) -> tuple[object, ...]:
        chance = self.chance
        names = ["a", "b", "d/a", "d/b", "d/e", "d/e/a", "d/e/b", "g", "g/a", "d"]
        one, other = chance.choice(names), chance.choice(names)
        offset = chance.choice([0, 5000, 70_000, ZONE - 100, ZONE + 5, 3 * ZONE, 5 * ZONE + 77])
        self.works += 1
        return chance.choice(
            [
                ("write", one, offset, chance.randrange(1, 100_000), self.works % 256),
                ("write", one, offset, chance.randrange(1, 100_000), self.works % 256),
                ("create", one, 0o640),
                ("truncate", one, offset),
                ("fallocate", one, chance.choice([0, 3, 16]), offset, 1 + offset),
                ("mkdir", one, 0o750),
                ("mkdir", one, 0o700),
                ("unlink", one),
                ("rmdir", one),
                ("rename", one, other, chance.choice([0, 0, 1, 2])),
                ("rename", one, other, 0),
                ("link", one, other),
                ("symlink", one, other),
                ("chmod", one, 0o600),
                ("setxattr", one, "user.a", b"%d" % self.works),
                ("open", one),
                ("write_open", 0, offset, b"%d" % self.works),
            ]
        )

    def checkpoint(self) -> None:
        self.told.append("checkpoint")
        self.primary.call("checkpoint")
        for disk in self.disks.values():
            disk.now()

    def cut(self, node: Node) -> None:
        lost = self.chance.random() < 0.5
        self.told.append(f"cut {node.name}{', its cache lost' if lost else ''}")
        node.power_cut()
        if lost:
            self.disks[node].lose_cache()

    def standby_dies(self) -> None:
        self.cut(self.standby)
        self.primary.wait_stream("held")
        self.primary.call("continue_alone", generation=fresh())
        self.work()
        if self.chance.random() < 0.3:
            self.told.append("alone checkpoint")
            self.primary.call("checkpoint")
            self.disks[self.primary].now()
            self.work()
        self.standby.boot()

    def standby_dies_in_the_resync(self) -> None:
        self.standby_dies()
        self.work(4)
        self.standby_dies_again()
        self.standby.boot()

    def standby_dies_again(self) -> None:
        self.cut(self.standby)
        self.primary.wait_stream("held", "alone")
        if self.primary.stream == "held":
            self.primary.call("continue_alone", generation=fresh())
        self.work()

    def primary_dies(self) -> None:
        self.cut(self.primary)
        self.standby.wait_stream("lost")
        self.primary, self.standby = self.standby, self.primary
        self.primary.begin()
        self.work()
        self.standby.boot()

    def primary_dies_in_the_resync(self) -> None:
        self.standby_dies()
        self.work(4)
        self.cut(self.primary)
        self.standby.wait_stream("disconnected", "lost", "synced")
        self.primary.boot()
        self.primary.begin()
        self.work()

    def both_die(self) -> None:
        self.cut(self.standby)
        self.primary.wait_stream("held")
        if self.chance.random() < 0.5:
            self.primary.call("continue_alone", generation=fresh())
            self.work()
        self.cut(self.primary)
        self.primary.boot()
        self.primary.begin()
        self.work()
        self.standby.boot()

    def standbys_process_dies(self) -> None:
        self.told.append("kill the standby's replicator")
        self.standby.kill()
        self.standby.start(restored=True)
        self.standby.call("become_secondary")  # as its operator would

    def primarys_process_dies(self) -> None:
        self.told.append("kill the primary's replicator")
        self.primary.kill()
        self.primary.start(restored=True)
        self.primary.call("become_primary", generation="")

    def swap(self) -> None:
        self.told.append("swap")
        self.primary.call("become_secondary")
        self.standby.wait_stream("handed-over")
        self.primary, self.standby = self.standby, self.primary
        self.primary.call("become_primary", generation="")

    def turn(self) -> None:
        self.work()
        if self.chance.random() < 0.4:
            self.checkpoint()
            self.work()
        event = self.chance.choice(
            [
                self.standby_dies,
                self.standby_dies_in_the_resync,
                self.primary_dies,
                self.primary_dies_in_the_resync,
                self.both_die,
                self.standbys_process_dies,
                self.primarys_process_dies,
                self.swap,
            ]
        )
        self.told.append(event.__name__)
        event()
        self.work(6)
        self.primary.wait_stream("synced")
        self.standby.wait_stream("synced")
        assert_equal_trees(self.primary.backing, self.standby.backing)
        self.disks[self.standby].now()  # a resync ends on its disk


@pytest.mark.parametrize("number", range(TORMENTS))
def test_whatever_dies_and_whatever_is_lost_both_end_equal(
    pair: Pair, tmp_path: Path, number: int
) -> None:
    seed = SEED + number
    print(f"TORMENT_SEED={seed} TORMENTS=1")
    pair.replicate()
    torment = Torment(pair, tmp_path, seed)
    torment.checkpoint()
    for _ in range(TURNS):
        torment.told.clear()
        try:
            torment.turn()
        except (AssertionError, OSError) as err:
            story = ", ".join(torment.told)
            logs = "".join(f"{n.name}:\n{n.log_text()[-3000:]}" for n in (pair.a, pair.b))
            raise AssertionError(f"last turn: {story}\n{logs}\n{err}") from err
