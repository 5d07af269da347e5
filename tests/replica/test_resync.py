# SPDX-License-Identifier: Apache-2.0
"""Bringing a stale copy up to date while the application goes on."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from haoperator.replica.beneath import remove_tree
from tests.replica.pair import Pair, wait_for
from tests.replica.test_posix import exchange
from tests.replica.test_roles import fresh
from tests.replica.trees import assert_equal_trees
from tests.replica.writer import Writer

MIB = 1024 * 1024
ROUNDS = int(os.environ.get("CHURN_ROUNDS", "4"))


def fill(root: Path, *, files: int = 60, seed: int = 1) -> None:
    """A tree with a bit of everything."""
    chance = random.Random(seed)
    for number in range(files):
        directory = root / f"d{number % 7}" / f"e{number % 3}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"f{number}").write_bytes(
            chance.randbytes(chance.choice([0, 10, 5000, 200_000]))
        )
    (root / "soft").symlink_to("d1/e1")
    os.link(root / "d1" / "e1" / "f1", root / "hard")
    os.link(root / "hard", root / "d2" / "hard2")
    os.mkfifo(root / "fifo")
    os.setxattr(root / "d3", "user.x", b"y")
    (root / "d0").chmod(0o1777)
    os.utime(root / "d1", ns=(1, 2_000_000_003))


def full_directory(path: Path) -> None:
    path.mkdir()
    (path / "full").write_text("x")


def leave_behind(pair: Pair) -> None:
    """b loses its power, a goes on alone."""
    pair.b.power_cut()
    pair.a.wait_stream("held")
    pair.a.call("continue_alone", generation=fresh())


def come_back(pair: Pair) -> None:
    pair.b.boot()
    pair.a.wait_stream("synced")
    pair.b.wait_stream("synced")
    assert_equal_trees(pair.a.backing, pair.b.backing)


def test_first_synchronisation_of_a_tree(pair: Pair) -> None:
    fill(pair.a.path)
    fill(pair.b.path, files=20, seed=2)
    (pair.b.path / "d1" / "extra").mkdir(parents=True)
    (pair.b.path / "d1" / "extra" / "file").touch()
    pair.replicate()
    assert_equal_trees(pair.a.backing, pair.b.backing)


def test_everything_of_another_kind_on_the_stale_side(pair: Pair) -> None:
    a, b = pair.a.path, pair.b.path
    kinds: list[Callable[[Path], object]] = [
        lambda path: path.write_text(str(path.name)),
        lambda path: path.mkdir(),
        lambda path: path.symlink_to("target"),
        os.mkfifo,
        full_directory,
    ]
    for mine, make_mine in enumerate(kinds):
        for theirs, make_theirs in enumerate(kinds):
            make_mine(a / f"{mine}-{theirs}")
            make_theirs(b / f"{mine}-{theirs}")
    pair.replicate()
    assert_equal_trees(pair.a.backing, pair.b.backing)


def test_hard_links_that_are_grouped_otherwise_on_the_stale_side(pair: Pair) -> None:
    a, b = pair.a.path, pair.b.path
    for root, groups in ((a, ["ab", "cd", "e"]), (b, ["ac", "bde"])):
        for group in groups:
            (root / group[0]).write_text(f"{root.parent.name} {group}")
            for name in group[1:]:
                os.link(root / group[0], root / name)
    pair.replicate()
    assert_equal_trees(pair.a.backing, pair.b.backing)


def test_tree_that_is_deeper_than_python_recurses(synced: Pair) -> None:
    a = synced.a
    leave_behind(synced)
    for root in (a.path, synced.b.path):  # b's is to go, a's is to come
        at = os.open(root, os.O_RDONLY)
        for level in range(1500):
            name = f"{root.parent.name}" if level == 0 else "d"
            os.mkdir(name, dir_fd=at)
            below = os.open(name, os.O_RDONLY, dir_fd=at)
            os.close(at)
            at = below
        os.close(at)
    synced.b.power_cut()
    Path(synced.b.settings["record_path"]).with_name("intent-log").unlink()
    come_back_deep(synced)


def come_back_deep(pair: Pair) -> None:
    """`os.walk` recurses: the depth is looked at alone."""
    pair.b.boot()
    pair.a.wait_stream("synced")
    pair.b.wait_stream("synced")
    assert sorted(os.listdir(pair.a.backing)) == sorted(os.listdir(pair.b.backing))
    at = os.open(pair.b.backing / "a", os.O_RDONLY)
    for _ in range(1499):
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    assert os.listdir(at) == []
    os.close(at)
    for root in (pair.a.backing, pair.b.backing):
        fd = os.open(root, os.O_RDONLY)
        remove_tree(fd, b"a")
        os.close(fd)


def test_only_what_differs_is_copied(synced: Pair) -> None:
    a = synced.a
    (a.path / "large").write_bytes(os.urandom(32 * MIB))
    fill(a.path)
    leave_behind(synced)
    with open(a.path / "large", "r+b") as file:
        file.seek(10 * MIB)
        file.write(b"changed")
        file.seek(20 * MIB + 65_530)
        file.write(b"changed too, over the end of a block")
    come_back(synced)
    (directory,) = a.state["directories"]
    assert directory["resync_copied_bytes"] == 3 * 65_536
    assert directory["resync_compared_bytes"] >= 32 * MIB
    assert directory["resync_progress"] == 1.0
    assert directory["out_of_sync_bytes"] == 0


def test_sparse_files_stay_sparse(synced: Pair) -> None:
    leave_behind(synced)
    with open(synced.a.path / "sparse", "wb") as file:
        file.truncate(1 << 34)
        file.seek(1 << 33)
        file.write(b"island")
    synced.b.boot()
    synced.a.wait_stream("synced")
    ours, theirs = (n.backing / "sparse" for n in (synced.a, synced.b))
    assert theirs.stat().st_size == 1 << 34
    assert theirs.stat().st_blocks <= ours.stat().st_blocks + 256


def churn(root: Path, stop: threading.Event, seed: int) -> None:
    """Everything that can happen to names and contents, as fast as it goes."""
    chance = random.Random(seed)
    base = root / f"churn-{seed % 2}"
    base.mkdir(exist_ok=True)
    step = 0
    while not stop.is_set():
        step += 1
        directory = base / f"d{chance.randrange(4)}"
        path = directory / f"f{chance.randrange(12)}"
        other = base / f"d{chance.randrange(4)}" / f"f{chance.randrange(12)}"
        try:
            directory.mkdir(exist_ok=True)
            match chance.randrange(13):
                case 0 | 1:
                    path.write_bytes(chance.randbytes(chance.randrange(150_000)))
                case 2:
                    with open(path, "r+b") as file:
                        file.seek(chance.randrange(100_000))
                        file.write(b"patch %d" % step)
                case 3:
                    path.rename(other)
                case 4:
                    os.link(path, other)
                case 5:
                    path.unlink()
                case 6:
                    shutil.move(directory, base / f"moved-{chance.randrange(3)}")
                case 7:
                    shutil.rmtree(base / f"moved-{chance.randrange(3)}")
                case 8:
                    path.chmod(chance.choice([0o600, 0o644, 0o755]))
                    os.setxattr(path, "user.step", b"%d" % step)
                case 9:
                    os.truncate(path, chance.randrange(200_000))
                case 10:
                    exchange(path, other)
                case 11:
                    exchange(directory, base / f"moved-{chance.randrange(3)}")
                case 12:
                    (directory / f"s{chance.randrange(5)}").symlink_to(f"to-{step}")
        except OSError:
            pass  # the path is not there, or is taken


@contextlib.contextmanager
def churning(root: Path, seeds: range) -> Iterator[None]:
    stop = threading.Event()
    churners = [threading.Thread(target=churn, args=(root, stop, seed)) for seed in seeds]
    for thread in churners:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in churners:
            thread.join()


def test_resync_under_churn_ends_equal(synced: Pair) -> None:
    a = synced.a
    fill(a.path)
    for turn in range(ROUNDS):
        with churning(a.path, range(3 * turn, 3 * turn + 3)):
            leave_behind(synced)
            synced.b.boot()
            a.wait_stream("synced")
        assert a.stream == "synced", synced.b.log_text()
        assert_equal_trees(a.backing, synced.b.backing)


def test_resync_while_a_log_is_written(synced: Pair) -> None:
    a = synced.a
    (a.path / "large").write_bytes(os.urandom(20 * MIB))
    with Writer(a.path / "log") as writer:
        leave_behind(synced)
        with open(a.path / "large", "r+b") as file:
            file.write(os.urandom(5 * MIB))
        synced.b.boot()
        a.wait_stream("synced")
        writer.advances()
    assert_equal_trees(a.backing, synced.b.backing)


def test_interrupted_resync_begins_again(synced: Pair) -> None:
    a, b = synced.a, synced.b
    leave_behind(synced)
    for number in range(20):
        (a.path / f"file-{number}").write_bytes(os.urandom(4 * MIB))
    b.boot()
    wait_for(lambda: a.state["directories"][0]["resync_copied_bytes"] > 0, "it has begun")
    b.power_cut()
    a.wait_stream("alone")
    (a.path / "meanwhile").touch()
    b.start()
    assert not b.record["consistent"]
    b.mount()
    b.wait_stream("resync", "synced")
    a.wait_stream("synced")
    assert b.record["consistent"]
    assert_equal_trees(a.backing, b.backing)


def test_mixture_is_not_promoted(synced: Pair) -> None:
    import pytest

    a, b = synced.a, synced.b
    leave_behind(synced)
    for number in range(20):
        (a.path / f"file-{number}").write_bytes(os.urandom(4 * MIB))
    b.boot()
    wait_for(lambda: a.state["directories"][0]["resync_copied_bytes"] > 0, "it has begun")
    a.power_cut()
    b.wait_stream("disconnected")
    with pytest.raises(RuntimeError, match="mixture"):
        b.call("become_primary", generation=fresh())
    b.call("become_primary", generation=fresh(), force=True)
    assert b.record["consistent"]


def test_nameless_file_gets_its_name_during_a_resync(synced: Pair) -> None:
    a = synced.a
    leave_behind(synced)
    fd = os.open(a.path, os.O_TMPFILE | os.O_RDWR, 0o640)
    try:
        os.write(fd, os.urandom(300_000))
        synced.b.boot()
        a.wait_stream("synced")
        os.write(fd, b"more")
        at = os.open("/", os.O_PATH)
        os.link(f"/proc/self/fd/{fd}", a.path / "published", src_dir_fd=at, follow_symlinks=True)
        os.close(at)
        os.write(fd, b"and more")
    finally:
        os.close(fd)
    assert_equal_trees(a.backing, synced.b.backing)
