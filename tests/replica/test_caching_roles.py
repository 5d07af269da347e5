# SPDX-License-Identifier: Apache-2.0
"""`durability = "fsync"`: who sees which size, and what becomes of what was not synced."""

from __future__ import annotations

import errno
import mmap
import os
import secrets
import signal
from pathlib import Path

import pytest

from haoperator.replica._hotpath import mount, umount2
from tests.replica.pair import Node, Pair, wait_for
from tests.replica.spawner import Spawner
from tests.replica.trees import assert_equal_trees, tree_of
from tests.replica.writer import Writer, lines_in


def swap(old: Node, new: Node) -> None:
    old.call("become_secondary")
    assert new.stream == "handed-over"
    new.call("become_primary", generation="")
    new.wait_stream("synced")


def write_and_sync(path: Path, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def test_write_returns_before_the_peer_has_it_and_fsync_after(caching: Pair) -> None:
    a, b = caching.a, caching.b
    fd = os.open(a.path / "file", os.O_CREAT | os.O_RDWR)
    try:
        sent = a.state["hot"]["sent"]
        os.write(fd, b"x" * 100_000)
        assert a.state["hot"]["sent"] == sent
        assert os.fstat(fd).st_size == 100_000
        assert (b.backing / "file").stat().st_size == 0
        os.fsync(fd)
        assert (b.backing / "file").read_bytes() == b"x" * 100_000
    finally:
        os.close(fd)


def test_standby_shows_every_size_that_the_file_had(caching: Pair) -> None:
    a, b = caching.a, caching.b
    (b.path / "file").exists()
    for size in (10, 5000, 3, 0, 100_000, 4096, 4097, 1):
        write_and_sync(a.path / "file", b"%d" % (size % 10) * size)
        seen = (b.path / "file").stat()
        assert seen.st_size == size
        assert seen.st_mtime_ns == (a.path / "file").stat().st_mtime_ns
        assert (b.path / "file").read_bytes() == (a.path / "file").read_bytes()


def test_standby_reads_on_in_a_file_that_grows_and_shrinks(caching: Pair) -> None:
    a, b = caching.a, caching.b
    write_and_sync(a.path / "log", b"1" * 10)
    with open(b.path / "log", "rb", buffering=0) as reading:
        assert reading.read() == b"1" * 10
        with open(a.path / "log", "ab", buffering=0) as log:
            for number in range(5):
                log.write(b"%d" % number * 5000)
                os.fsync(log.fileno())
                assert (b.path / "log").stat().st_size == 10 + 5000 * (number + 1)
                assert reading.read(5000) == b"%d" % number * 5000
        os.truncate(a.path / "log", 7)
        assert reading.read(100) == b""
        reading.seek(0)
        assert reading.read(100) == b"1" * 7


def test_handle_on_the_standby_is_told_that_its_file_has_grown(caching: Pair) -> None:
    a, b = caching.a, caching.b
    write_and_sync(a.path / "log", b"1")
    with open(b.path / "log", "rb", buffering=0) as reading:
        assert reading.read() == b"1"
        for size in (2, 5000, 4096 * 5, 100_000):
            with open(a.path / "log", "r+b", buffering=0) as log:
                log.truncate(size - 1)
                log.seek(size - 1)
                log.write(b"%d" % (size % 7))
                os.fsync(log.fileno())
            wait_for(
                lambda: os.fstat(reading.fileno()).st_size == (a.path / "log").stat().st_size,
                "growth",
            )
            assert (b.path / "log").stat().st_size == size
            assert reading.read()[-1:] == b"%d" % (size % 7)
    assert_equal_trees(a.path, b.path)


def test_a_swap_there_and_back_shows_sizes_contents_and_times(caching: Pair) -> None:
    a, b = caching.a, caching.b
    for name in ("grows", "shrinks", "stays", "goes"):
        write_and_sync(a.path / name, name.encode() * 1000)
    os.link(a.path / "grows", a.path / "linked")
    one, other = a, b
    for turn in range(4):
        before = tree_of(one.path)
        assert tree_of(other.path) == before
        swap(one, other)
        one, other = other, one
        assert tree_of(one.path) == before
        assert tree_of(other.path) == before
        with open(one.path / "grows", "ab") as file:
            file.write(b"%d" % turn * 10_000)
        write_and_sync(one.path / "shrinks", b"%d" % turn * (500 - 100 * turn))
        os.utime(one.path / "stays", ns=(5, 1_000_000_007 * (turn + 1)))
        (one.path / "goes").unlink()
        (one.path / "goes").write_text("anew " * turn)
        assert (one.path / "linked").stat().st_size == 5000 + 10_000 * (turn + 1)
        assert_equal_trees(one.path, other.path)
    assert_equal_trees(a.backing, b.backing)


def test_new_primary_does_not_believe_what_it_showed_as_a_standby(caching: Pair) -> None:
    a, b = caching.a, caching.b
    for name in ("grows", "shrinks"):
        write_and_sync(a.path / name, b"x" * 1000)
        assert (b.path / name).stat().st_size == 1000
    write_and_sync(a.path / "grows", b"y" * 5000)
    write_and_sync(a.path / "shrinks", b"y" * 10)
    before = tree_of(a.path)
    swap(a, b)
    assert (b.path / "grows").stat().st_size == 5000
    assert (b.path / "shrinks").stat().st_size == 10
    assert tree_of(b.path) == before
    with open(b.path / "shrinks", "ab") as file:
        file.write(b"z")
    assert (a.path / "shrinks").read_bytes() == b"y" * 10 + b"z"


def test_what_was_not_synced_survives_a_swap(caching: Pair) -> None:
    a, b = caching.a, caching.b
    (a.path / "dir").mkdir()
    open_files = [os.open(a.path / "dir" / str(n), os.O_CREAT | os.O_RDWR) for n in range(20)]
    for number, fd in enumerate(open_files):
        os.pwrite(fd, b"%d" % number * 300_000, 0)
    with open(a.path / "mapped", "w+b") as file:
        file.truncate(100_000)
        with mmap.mmap(file.fileno(), 0) as memory:
            memory[5000:5006] = b"mapped"
            swap(a, b)
    assert (b.path / "mapped").read_bytes()[5000:5006] == b"mapped"
    for number, fd in enumerate(open_files):
        expected = b"%d" % number * 300_000
        assert (b.path / "dir" / str(number)).read_bytes() == expected
        assert (a.path / "dir" / str(number)).read_bytes() == expected
        os.close(fd)
    assert_equal_trees(a.backing, b.backing)


def test_writes_that_come_after_the_last_known_name_has_gone(
    tmp_path: Path, spawner: Spawner
) -> None:
    pair = Pair(tmp_path, spawner, durability="fsync")
    a, b = pair.a, pair.b
    for name in ("one", "three"):
        (a.path / name).write_text("older than the mount")
    os.link(a.path / "one", a.path / "two")
    os.link(a.path / "three", a.path / "four")
    try:
        pair.replicate()
        (a.path / "new").write_text("new")
        fds = [os.open(a.path / name, os.O_WRONLY) for name in ("one", "three")]
        for fd in fds:
            os.write(fd, b"written")
        (a.path / "one").unlink()
        (a.path / "new").rename(a.path / "three")
        for fd in fds:
            os.fsync(fd)
            os.close(fd)
        for name in ("two", "four"):
            assert (b.path / name).read_text() == "writtenhan the mount"
        assert_equal_trees(a.backing, b.backing)
    finally:
        pair.stop()


def fails(fd: int) -> bool:
    try:
        os.pwrite(fd, b"too late", 0)
        os.fsync(fd)
    except OSError as err:
        assert err.errno in (errno.EROFS, errno.ESTALE, errno.EIO)
        return True
    return False


def test_handle_of_a_former_primary_fails_and_never_again_works(caching: Pair) -> None:
    a, b = caching.a, caching.b
    fds = [os.open(a.path / name, os.O_CREAT | os.O_RDWR) for name in ("one", "two", "three")]
    for fd in fds:
        os.write(fd, b"synced")
        os.fsync(fd)
    swap(a, b)
    assert fails(fds[0])
    swap(b, a)
    assert fails(fds[0])
    assert fails(fds[1])
    (a.path / "two").write_bytes(b"newer, longer")
    swap(a, b)
    swap(b, a)
    assert fails(fds[2])
    with pytest.raises(OSError, match="Stale"):
        os.pread(fds[1], 100, 0)
    for fd in fds:
        os.close(fd)
    assert (a.path / "one").read_bytes() == b"synced"
    assert (a.path / "two").read_bytes() == b"newer, longer"
    assert (a.path / "three").read_bytes() == b"synced"
    assert_equal_trees(a.backing, b.backing)


def test_reader_that_opened_on_the_standby_reads_on_after_its_promotion(caching: Pair) -> None:
    a, b = caching.a, caching.b
    write_and_sync(a.path / "file", b"before")
    with open(b.path / "file", "rb", buffering=0) as reading:
        assert reading.read() == b"before"
        swap(a, b)
        with open(b.path / "file", "ab") as file:
            file.write(b", after")
            file.flush()
            os.fsync(file.fileno())
        assert reading.read() == b", after"


def test_swap_under_load_loses_nothing_that_was_synced(caching: Pair) -> None:
    a, b = caching.a, caching.b
    with Writer(a.path / "log", sync=True) as writer, Writer(a.path / "other") as other:
        writer.advances()
        other.advances()
        a.call("become_secondary")
    assert writer.error in ("EROFS", "EIO", "ESTALE")
    assert other.error in ("EROFS", "EIO", "ESTALE")
    b.call("become_primary", generation="")
    b.wait_stream("synced")
    assert writer.acknowledged <= lines_in(b.path / "log") <= writer.acknowledged + 1
    assert_equal_trees(a.backing, b.backing)


def test_power_cut_loses_nothing_that_was_synced(caching: Pair) -> None:
    a, b = caching.a, caching.b
    with Writer(a.path / "log", sync=True) as writer:
        for _ in range(5):
            writer.advances()
        a.power_cut()
    assert writer.error
    b.wait_stream("lost")
    b.begin()
    assert writer.acknowledged <= lines_in(b.path / "log") <= writer.acknowledged + 1
    a.boot()
    b.wait_stream("synced")
    assert_equal_trees(a.backing, b.backing)
    assert tree_of(a.path) == tree_of(b.path)


def test_held_primary_that_must_step_down_says_so_to_whoever_syncs(caching: Pair) -> None:
    a = caching.a
    with Writer(a.path / "log", sync=True) as writer:
        caching.b.power_cut()
        a.wait_stream("held")
        held_at = writer.acknowledged
        a.call("become_secondary")
    assert writer.error in ("EROFS", "EIO", "ESTALE")
    assert writer.acknowledged <= held_at + 1


def test_flush_that_takes_too_long_is_given_up_and_told(tmp_path: Path, spawner: Spawner) -> None:
    pair = Pair(tmp_path, spawner, durability="fsync", detect_seconds=20.0)
    a, b = pair.a, pair.b
    try:
        pair.replicate()
        fd = os.open(a.path / "file", os.O_CREAT | os.O_RDWR)
        os.write(fd, b"synced")
        os.fsync(fd)
        assert b.process is not None
        b.process.send_signal(signal.SIGSTOP)  # connected, and answers nothing
        os.write(fd, b", not synced")
        a.call("become_secondary")
        assert "could be saved in time" in a.log_text()
        with pytest.raises(OSError, match=r"Read-only|Input/output|Stale"):
            os.fsync(fd)
        os.close(fd)
        b.process.send_signal(signal.SIGCONT)
        wait_for(lambda: b.stream in ("lost", "handed-over"), "the stream is over")
        b.begin()
        a.wait_stream("synced")
        assert (b.path / "file").read_bytes().startswith(b"synced")
        assert_equal_trees(a.path, b.path)
    finally:
        pair.stop()


def test_lost_standby_that_comes_back_lets_fsync_return(caching: Pair) -> None:
    a, b = caching.a, caching.b
    with Writer(a.path / "log", sync=True) as writer:
        b.power_cut()
        a.wait_stream("held")
        b.boot()
        a.wait_stream("synced")
        writer.advances()
    assert lines_in(b.path / "log") == writer.acknowledged
    assert_equal_trees(a.backing, b.backing)


def restart(node: Node) -> None:
    node.kill()
    node.start(restored=True)


def test_restarted_primary_goes_on_without_an_error(caching: Pair) -> None:
    a, b = caching.a, caching.b
    (a.path / "dir").mkdir()
    idle = os.open(a.path / "idle", os.O_CREAT | os.O_RDWR)
    with Writer(a.path / "dir" / "log", sync=True) as writer, Writer(a.path / "other") as other:
        for turn in range(3):
            os.pwrite(idle, b"%d" % turn * 50_000, 50_000 * turn)
            restart(a)
            assert a.state["role"] == "held"
            a.call("become_primary", generation="")
            writer.advances()
            other.advances()
            a.wait_stream("synced")
    assert not writer.error
    assert not other.error
    assert os.fstat(idle).st_size == 150_000
    swap(a, b)  # the restarted process does not know who writes, and flushes all the same
    os.close(idle)
    assert (b.path / "idle").read_bytes() == b"0" * 50_000 + b"1" * 50_000 + b"2" * 50_000
    assert lines_in(b.path / "dir" / "log") == writer.acknowledged
    assert lines_in(b.path / "other") == other.acknowledged
    assert_equal_trees(a.backing, b.backing)


def test_configuration_counts_when_the_directory_is_mounted_anew(caching: Pair) -> None:
    a, b = caching.a, caching.b
    a.settings["durability"] = "write"
    restart(a)
    a.call("become_primary", generation="")
    a.wait_stream("synced")
    fd = os.open(a.path / "file", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"the kernel still caches")
    assert (b.backing / "file").stat().st_size == 0
    swap(a, b)
    assert (b.path / "file").read_bytes() == b"the kernel still caches"
    os.close(fd)
    a.power_cut()
    a.boot()
    b.wait_stream("synced")
    swap(b, a)
    with open(a.path / "file", "wb", buffering=0) as file:
        file.write(b"no more")
        assert (b.backing / "file").read_bytes() == b"no more"


def test_standby_that_was_restarted_shows_no_old_size(caching: Pair) -> None:
    a, b = caching.a, caching.b
    write_and_sync(a.path / "file", b"old")
    with open(b.path / "file", "rb", buffering=0) as reading:
        assert reading.read() == b"old"
        b.kill()
        a.wait_stream("held")
        b.start(restored=True)
        b.call("become_secondary")
        a.wait_stream("synced")
        write_and_sync(a.path / "file", b"new and longer")
        assert reading.read() == b" and longer"
        assert (b.path / "file").stat().st_size == 14
        b.kill()
        b.start(restored=True)
        a.power_cut()
        b.call("become_primary", generation=secrets.token_hex(8))
        assert (b.path / "file").read_bytes() == b"new and longer"
        (b.path / "file").write_bytes(b"short")
        assert (b.path / "file").stat().st_size == 5


def test_full_disk_is_told_to_whoever_syncs_or_closes(tmp_path: Path, spawner: Spawner) -> None:
    pair = Pair(tmp_path, spawner, durability="fsync")
    a, b = pair.a, pair.b
    mount(b"tmpfs", os.fsencode(a.path), b"tmpfs", 0, b"size=8m")
    try:
        pair.replicate()
        for name, finish in (("synced", os.fsync), ("closed", os.close)):
            fd = os.open(a.path / name, os.O_CREAT | os.O_WRONLY)
            os.write(fd, bytes(6_000_000))
            with pytest.raises(OSError, match="No space left"):
                for _ in range(2):
                    os.write(fd, bytes(6_000_000))
                finish(fd)
            if finish is os.fsync:
                os.close(fd)
            (a.path / name).unlink()
        write_and_sync(a.path / "small", b"fits again")
        assert a.stream == "synced"
        assert_equal_trees(a.backing, b.backing)
    finally:
        pair.stop()
        umount2(os.fsencode(a.path), 2)
