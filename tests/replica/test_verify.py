# SPDX-License-Identifier: Apache-2.0
"""Verify compares both copies while the application writes: it finds all, and nothing else."""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from haoperator.replica._hotpath import fallocate
from tests.replica.pair import Node, Pair, wait_for
from tests.replica.test_noted import retire_everything
from tests.replica.test_posix import KEEP_SIZE, PUNCH_HOLE
from tests.replica.test_resync import MIB, churning, fill
from tests.replica.test_roles import fresh
from tests.replica.trees import assert_equal_trees
from tests.replica.writer import Writer

ROUNDS = int(os.environ.get("VERIFY_ROUNDS", "2"))


def verified(node: Node, *, repair: bool = False, seconds: float = 50.0) -> dict[str, Any]:
    """The result of one verification from its start to its end."""
    node.call("verify", repair=repair)
    return ended(node, seconds)


def ended(node: Node, seconds: float = 50.0) -> dict[str, Any]:
    def result() -> Any:
        told = node.call("verification")
        return None if told["state"] in ("running", "repairing") else told

    try:
        told = wait_for(result, "the verification ends", seconds)
    except AssertionError as err:
        raise AssertionError(f"{err}: {node.call('verification')}\n{node.log_text()}") from None
    assert isinstance(told, dict)
    return told


def found(result: dict[str, Any]) -> set[tuple[str, str]]:
    assert result["state"] == "done", result
    assert result["difference_count"] == len(result["differences"]), result
    return {(each["path"], each["what"]) for each in result["differences"]}


@contextlib.contextmanager
def times_kept(path: Path) -> Iterator[None]:
    """What is done to the content is not seen in the time."""
    is_backing = path.parent == Path("/proc/self/fd")
    st = os.stat(path, follow_symlinks=is_backing)
    yield
    os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns), follow_symlinks=is_backing)


def flip_a_bit(path: Path, offset: int) -> None:
    """As a disk does it: nobody is told, and no time changes."""
    with times_kept(path), open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x10]))


def test_equal_trees_are_equal(synced: Pair) -> None:
    fill(synced.a.path)
    result = verified(synced.a)
    assert found(result) == set()
    assert result["missed"] == 0
    assert result["progress"] == 1.0
    assert result["directories"] > 20
    assert result["files"] >= 60
    assert result["bytes"] > 1_000_000
    assert synced.a.stream == synced.b.stream == "synced"


def fidget(root: Path, stop: threading.Event, seed: int) -> None:
    """What churn leaves out: attributes, nameless files, holes, mappings, links to and fro."""
    chance = random.Random(seed)
    base = root / "fidget"
    base.mkdir(exist_ok=True)
    (base / "sub").mkdir(exist_ok=True)
    at = os.open("/", os.O_PATH)
    step = 0
    while not stop.is_set():
        step += 1
        path = base / chance.choice(["", "sub"]) / f"f{chance.randrange(9)}"
        other = base / chance.choice(["", "sub"]) / f"f{chance.randrange(9)}"
        with contextlib.suppress(OSError):
            match chance.randrange(10):
                case 0:
                    os.utime(path, ns=(step, step), follow_symlinks=False)
                case 1:
                    os.chown(path, chance.randrange(4), chance.randrange(4), follow_symlinks=False)
                case 2:
                    os.setxattr(path, f"user.{chance.randrange(3)}", b"%d" % step)
                case 3:
                    os.removexattr(path, f"user.{chance.randrange(3)}")
                case 4:
                    kind = chance.choice([stat.S_IFREG, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
                    os.mknod(path, 0o640 | kind, os.makedev(1, 3))
                case 5:
                    os.link(path, other, follow_symlinks=False)
                case 6:
                    os.rename(path, other)
                case 7:
                    path.unlink()
                case 8:
                    fd = os.open(base, os.O_TMPFILE | os.O_RDWR, 0o600)
                    try:
                        os.write(fd, chance.randbytes(chance.randrange(100_000)))
                        magic = f"/proc/self/fd/{fd}"
                        os.link(magic, path, src_dir_fd=at, follow_symlinks=True)
                    finally:
                        os.close(fd)
                case 9:
                    write_by_all_means(path, chance)
    os.close(at)


def write_by_all_means(path: Path, chance: random.Random) -> None:
    """A hole, a mapping, a set-id bit that a write clears; the file may have lost its name."""
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return
        os.ftruncate(fd, chance.randrange(1, 200_000))
        fallocate(fd, KEEP_SIZE | PUNCH_HOLE, chance.randrange(90_000), 70_000)
        os.fchmod(fd, 0o6755)
        with mmap.mmap(fd, 0) as mapping:
            mapping[0] = chance.randrange(256)
        os.pwrite(fd, chance.randbytes(5000), chance.randrange(150_000))
        if chance.randrange(2):
            os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def fidgeting(root: Path, seeds: range) -> Iterator[None]:
    stop = threading.Event()
    threads = [threading.Thread(target=fidget, args=(root, stop, seed)) for seed in seeds]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_equal_under_churn(synced: Pair) -> None:
    """No concurrent change of content, attributes or names looks like a difference."""
    a = synced.a
    fill(a.path, files=7)
    for turn in range(ROUNDS):
        seeds = range(2 * turn, 2 * turn + 2)
        with (
            churning(a.path, seeds),
            fidgeting(a.path, seeds),
            Writer(a.path / "log") as writer,
        ):
            result = verified(a)
            assert found(result) == set()
            writer.advances()
        assert a.stream == "synced", synced.b.log_text()
        assert_equal_trees(a.backing, synced.b.backing)


@pytest.mark.parametrize("repair", [False, True])
def test_one_flipped_bit_is_found_and_repaired(synced: Pair, repair: bool) -> None:
    a, b = synced.a, synced.b
    fill(a.path)
    (a.path / "d1" / "large").write_bytes(os.urandom(20 * MIB))
    os.sync()
    flip_a_bit(b.backing / "d1" / "large", 13 * MIB + 4711)
    with Writer(a.path / "log"):
        result = verified(a, repair=repair)
    (difference,) = result["differences"]
    block = (13 * MIB + 4711) // 65536 * 65536
    assert difference == {
        "directory": "data",
        "path": "d1/large",
        "what": "content",
        "detail": "",
        "offset": block,
        "length": 65536,
    }
    assert "hactl verify --repair" in a.log_text() or repair
    assert "d1/large" in a.log_text()
    if repair:
        assert result["repaired"] == 1
        assert not result["resync"]
        assert_equal_trees(a.backing, b.backing)
        assert found(verified(a)) == set()
    assert a.stream == "synced"


def truncate(path: Path) -> None:
    os.truncate(path, 100)


def make_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def chmod(path: Path) -> None:
    path.chmod(0o604)


def chown(path: Path) -> None:
    os.chown(path, 11, 12)


def retarget(path: Path) -> None:
    path.unlink()
    path.symlink_to("elsewhere")


def set_xattr(path: Path) -> None:
    os.setxattr(path, "user.x", b"z")


DAMAGES: list[tuple[str, str, Callable[[Path], object]]] = [
    ("d1/e2/f8", "mode", chmod),
    ("d1", "mode", chmod),
    ("d2/e2/f2", "owner", chown),
    ("fifo", "owner", chown),
    ("d4/e1/f4", "mtime", lambda path: os.utime(path, ns=(1, 1))),
    ("d5", "mtime", lambda path: os.utime(path, ns=(1, 1))),
    ("d3", "xattrs", set_xattr),
    ("d0/e0/f0", "xattrs", lambda path: os.setxattr(path, "user.new", b"")),
    ("soft", "target", retarget),
    ("one-device", "device", lambda path: os.mknod(path, 0o20644, os.makedev(1, 5))),
    ("a-fifo", "kind", make_a_fifo),
    ("long", "size", truncate),
    ("gone", "missing", os.unlink),
    ("gone-too", "missing", os.rmdir),
    ("strange", "extra", lambda path: path.write_text("x")),
    ("strange-too", "extra", lambda path: path.mkdir()),
    ("", "mode", lambda path: path.chmod(0o711)),
]


def prepare_for_damages(root: Path) -> None:
    os.mknod(root / "one-device", 0o20644, os.makedev(1, 3))
    (root / "a-fifo").touch()
    (root / "gone").write_text("content")
    (root / "gone-too").mkdir()
    (root / "long").write_bytes(b"l" * 90)
    os.truncate(root / "long", 0)
    os.truncate(root / "long", 300_000)


def damage(root: Path) -> set[tuple[str, str]]:
    """Everything that can be different about a name, once, and in the names alone."""
    expected = set()
    for path, what, do in DAMAGES:
        target = root / path
        with times_kept(target.parent) if path else contextlib.nullcontext():
            if what == "device":
                target.unlink()
            if what in ("extra", "missing"):
                do(target)
            elif what in ("target", "device", "kind"):
                st = os.lstat(target) if target.is_symlink() or target.exists() else None
                do(target)
                if st is not None:
                    os.utime(target, ns=(1, st.st_mtime_ns), follow_symlinks=False)
            elif what == "mtime":
                do(target)
            else:
                with times_kept(target):
                    do(target)
        expected.add((path, what))
    return expected


@pytest.mark.parametrize("repair", [False, True])
def test_whatever_differs_about_a_name_is_found(synced: Pair, repair: bool) -> None:
    a, b = synced.a, synced.b
    fill(a.path)
    prepare_for_damages(a.path)
    (a.path / "untouched").write_bytes(os.urandom(8 * MIB))
    retire_everything(a)
    assert found(verified(a)) == set()
    expected = damage(b.backing)
    result = verified(a, repair=repair)
    differences = found(result) - {("one-device", "mtime")}
    assert differences == expected | {("long", "content")}
    if not repair:
        assert a.stream == "synced"
        return
    assert result["resync"]
    wait_for(lambda: equal_when_synced(a), "the resync puts it right", 40)
    assert_equal_trees(a.backing, b.backing)
    (directory,) = a.state["directories"]
    assert 0 < directory["resync_compared_bytes"] < 4 * MIB, "all was compared again"


def equal_when_synced(node: Node) -> bool:
    """False as well if the stream ended meanwhile."""
    node.wait_stream("synced")
    result = verified(node)
    return result["state"] == "done" and not result["differences"]


def test_names_that_are_linked_otherwise_are_found(synced: Pair) -> None:
    a, b = synced.a, synced.b
    for name in ("one", "three"):
        (a.path / name).write_text("same")
    os.link(a.path / "one", a.path / "two")
    for name in ("one", "two", "three"):
        os.utime(a.path / name, ns=(5, 5))
    assert found(verified(a)) == set()
    with times_kept(b.backing):
        (b.backing / "two").unlink()
        os.link(b.backing / "three", b.backing / "two")
    assert {what for _, what in found(verified(a))} == {"links"}


def test_content_of_a_file_with_several_names_is_compared_once(synced: Pair) -> None:
    a, b = synced.a, synced.b
    (a.path / "one").write_bytes(os.urandom(3 * MIB))
    for name in ("two", "three"):
        (a.path / name).hardlink_to(a.path / "one")
        (a.path / f"sub-{name}").mkdir()
        (a.path / f"sub-{name}" / "more").hardlink_to(a.path / "one")
    result = verified(a)
    assert found(result) == set()
    assert result["files"] == 5
    assert result["bytes"] <= 3 * 3 * MIB  # those in one directory are asked for together
    flip_a_bit(b.backing / "two", MIB)
    assert {what for _, what in found(verified(a))} == {"content"}


def test_many_names_in_one_directory(synced: Pair) -> None:
    """More than are compared at a time, and more than fit in one answer."""
    a, b = synced.a, synced.b
    crowd = a.path / "crowd"
    crowd.mkdir()
    for number in range(9_000):
        os.mknod(crowd / f"{number:050}", 0o100644)
    with times_kept(b.backing / "crowd"):
        (b.backing / "crowd" / f"{4711:050}").unlink()
        (b.backing / "crowd" / "more").touch()
    result = verified(a)
    assert found(result) == {(f"crowd/{4711:050}", "missing"), ("crowd/more", "extra")}
    assert result["files"] == 8_999


def test_all_differences_are_counted_and_the_first_are_shown(synced: Pair) -> None:
    a, b = synced.a, synced.b
    for number in range(150):
        (a.path / f"f{number}").touch()
    for number in range(150):
        (b.backing / f"f{number}").chmod(0o600)
    result = verified(a)
    assert result["difference_count"] == 150
    assert len(result["differences"]) == 100


def test_what_moves_is_not_missed(synced: Pair) -> None:
    """Files with a wrong bit go back and forth between directories all the time."""
    a, b = synced.a, synced.b
    for number in range(40):
        (a.path / f"d{number:02}").mkdir()
        (a.path / f"d{number:02}" / "ballast").write_bytes(os.urandom(500_000))
    (a.path / "d00" / "x").write_bytes(bytes(1000))
    flip_a_bit(b.backing / "d00" / "x", 500)
    stop = threading.Event()

    def move() -> None:
        here, there = a.path / "d00" / "x", a.path / "d39" / "x"
        while not stop.wait(0.002):
            here.rename(there)
            here, there = there, here

    mover = threading.Thread(target=move)
    mover.start()
    try:
        result = verified(a)
    finally:
        stop.set()
        mover.join()
    assert result["state"] == "done"
    assert result["missed"] or {e["what"] for e in result["differences"]} == {"content"}
    differences = verified(a)["differences"]
    assert [(e["what"], e["offset"], e["length"]) for e in differences] == [("content", 0, 1000)]


def test_stream_that_ends_ends_the_verification(synced: Pair) -> None:
    a, b = synced.a, synced.b
    for number in range(60):
        (a.path / f"f{number}").write_bytes(os.urandom(2 * MIB))
    with Writer(a.path / "log"):
        a.call("verify")
        wait_for(lambda: a.call("verification")["bytes"], "it has begun")
        b.power_cut()
        result = ended(a)
        assert result["state"] == "stopped"
        assert "the stream to the standby ended" in result["reason"]
        assert result["differences"] == []
        b.boot()
        a.wait_stream("synced")
    assert found(verified(a)) == set()


def test_a_handover_ends_the_verification(synced: Pair) -> None:
    a, b = synced.a, synced.b
    for number in range(60):
        (a.path / f"f{number}").write_bytes(os.urandom(2 * MIB))
    a.call("verify")
    a.call("become_secondary")
    assert ended(a)["state"] == "stopped"
    b.call("become_primary", generation="")
    b.wait_stream("synced")
    assert found(verified(b)) == set()


def test_verify_needs_a_primary_with_an_up_to_date_standby(pair: Pair) -> None:
    pair.start()
    with pytest.raises(RuntimeError, match="not primary"):
        pair.a.call("verify")
    pair.b.stop()
    pair.a.begin()
    with pytest.raises(RuntimeError, match="no up-to-date standby"):
        pair.a.call("verify")
    assert pair.a.call("verification")["state"] == "none"


def test_only_one_at_a_time(synced: Pair) -> None:
    a = synced.a
    for number in range(60):
        (a.path / f"f{number}").write_bytes(os.urandom(2 * MIB))
    with Writer(a.path / "log"):
        a.call("verify")
        with pytest.raises(RuntimeError, match="running already"):
            a.call("verify")
        assert found(ended(a)) == set()


def test_nothing_is_left_behind(synced: Pair) -> None:
    """Neither here nor there: no descriptor, and no node that nobody else needs."""
    a, b = synced.a, synced.b
    fill(a.path)
    verified(a)

    def descriptors() -> list[int]:
        processes = [node.process for node in (a, b)]
        return [len(os.listdir(f"/proc/{p.pid}/fd")) for p in processes if p is not None]

    before = descriptors()
    for _ in range(3):
        assert found(verified(a)) == set()
    assert descriptors() == before


def test_repair_holds_although_the_standby_had_it_in_memory_only(synced: Pair) -> None:
    """What was sent again is noted as a change is, until it is on the disks of both."""
    a, b = synced.a, synced.b
    (a.path / "large").write_bytes(os.urandom(20 * MIB))
    os.sync()
    retire_everything(a)
    flip_a_bit(b.backing / "large", 13 * MIB)
    assert verified(a, repair=True)["repaired"] == 1
    b.power_cut()
    flip_a_bit(b.path / "large", 13 * MIB)  # as if that had never reached the disk
    a.wait_stream("held")
    a.call("continue_alone", generation=fresh())
    b.boot()
    a.wait_stream("synced")
    assert_equal_trees(a.backing, b.backing)
    (directory,) = a.state["directories"]
    assert directory["resync_compared_bytes"] < 20 * MIB
