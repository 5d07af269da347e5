# SPDX-License-Identifier: Apache-2.0
"""A full disk: on the primary the caller is told, on the standby the standby is outdated."""

from __future__ import annotations

import mmap
import os
import threading
from pathlib import Path

import pytest

from haoperator.replica._hotpath import fallocate
from tests.replica.beside import failure, in_child
from tests.replica.images import MIB, DiskPair, fill
from tests.replica.pair import wait_for
from tests.replica.test_roles import fresh
from tests.replica.trees import assert_equal_trees

SMALL = 12 * MIB


def settle(plain: Path) -> None:
    """Make what Node.begin makes, so that two disks have the same room."""
    (plain / ".flush").touch()
    (plain / ".flush").unlink()


def write_until_full(root: Path) -> list[object]:
    """One large write that is cut short, and what follows it."""
    fd = os.open("large", os.O_CREAT | os.O_WRONLY, 0o644)
    data = os.urandom(MIB)
    counts: list[object] = []
    while True:
        try:
            counts.append(os.write(fd, data * 3))
        except OSError as err:
            return [err.errno, len(counts) > 1, os.fstat(fd).st_size == os.lseek(fd, 0, 1)]


def change_in_no_room(root: Path) -> list[object]:
    """Everything that may need a block."""
    fd = os.open("old", os.O_RDWR)
    done: list[object] = [
        failure(os.pwrite, fd, b"x" * 100_000, 500_000),
        failure(os.pwrite, fd, b"in place", 0),
        failure(fallocate, fd, 0, 0, 3 * MIB),
        failure(fallocate, fd, 1, 3 * MIB, 3 * MIB),
        failure(os.truncate, "old", 4 * MIB),
        failure(os.truncate, "old", 5_000),
    ]
    for number in range(1, 40):
        done.append(failure(os.mkdir, f"dir-{number}"))
    done += [
        failure(os.symlink, "t" * 3_000, "link"),
        failure(os.symlink, "short", "short"),
        failure(os.setxattr, "old", "user.big", b"v" * 3_000),
        failure(os.setxattr, "old", "user.small", b"v"),
        failure(os.mknod, "n" * 250),
        failure(os.rename, "old", "o" * 250),
        failure(os.link, "o" * 250, "l" * 250),
    ]
    return done


def test_a_full_disk_on_the_primary_is_the_callers_alone(on_disks: DiskPair) -> None:
    on_disks.disk("a", SMALL)
    pair = on_disks.replicate()
    plain = pair.a.base / "plain"
    on_disks.disk("plain", SMALL).mount(plain)
    settle(plain)
    a, b = pair.a, pair.b
    for root in (a.path, plain):
        (root / "old").write_bytes(b"old" * 1000)
        (root / "names").mkdir()
    for action in (write_until_full, change_in_no_room):
        assert in_child(action, a.path) == in_child(action, plain)
    assert_equal_trees(a.backing, b.backing)
    for root in (a.path, plain):
        fill(root)
        with pytest.raises(OSError, match="No space left"):
            (root / "more").write_bytes(bytes(MIB))
    assert in_child(change_many_names, a.path) == in_child(change_many_names, plain)
    assert_equal_trees(a.backing, b.backing)
    assert (a.stream, b.stream) == ("synced", "synced")
    (a.path / "large").unlink()
    (a.path / "after").write_text("there is room again")
    assert_equal_trees(a.backing, b.backing)
    assert not b.record["peer_outdated"] and b.record["up_to_date"]


def change_many_names(root: Path) -> list[str]:
    """Until the directory needs a block that is not there."""
    return sorted({failure(os.mknod, f"names/{number:0240}") for number in range(300)})


def test_pages_of_a_mapping_that_found_no_room(on_disks: DiskPair) -> None:
    """They are written behind the caller's back: msync(2) and fsync(2) say that they are lost."""
    on_disks.disk("a", SMALL)
    pair = on_disks.replicate()
    path = pair.a.path / "mapped"
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    os.ftruncate(fd, 2 * MIB)
    fill(pair.a.path, leave=MIB + 500_000)  # the last request of 1 MiB is cut short
    with mmap.mmap(fd, 2 * MIB) as memory:
        memory[:] = b"m" * (2 * MIB)
        assert failure(memory.flush) == "ENOSPC"
    os.close(fd)
    assert_equal_trees(pair.a.backing, pair.b.backing)
    assert pair.a.stream == pair.b.stream == "synced"


def test_a_full_disk_on_the_standby_makes_it_outdated_and_nobody_fail(on_disks: DiskPair) -> None:
    on_disks.disk("b", SMALL)
    pair = on_disks.replicate()
    a, b = pair.a, pair.b
    log = os.open(a.path / "log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    filler = os.open(a.path / "filler", os.O_CREAT | os.O_WRONLY)
    os.write(log, b"before\n")
    worker = threading.Thread(target=lambda: [os.write(filler, os.urandom(MIB)) for _ in range(16)])
    worker.start()
    a.wait_stream("held")
    wait_for(lambda: not b.record["up_to_date"], "b knows that it is outdated")
    a.call("continue_alone", generation=fresh(), within=60.0)
    worker.join(30)
    assert "No space left" in b.log_text()
    assert "the standby is outdated: " in a.log_text()
    assert os.fstat(filler).st_size == 16 * MIB
    os.write(log, b"alone\n")
    # It is tried again; for as long as there is no room the application does not notice.
    wait_for(lambda: a.log_text().count("the standby is outdated: ") > 1, "another attempt", 40)
    os.write(log, b"still alone\n")
    assert not b.record["up_to_date"]
    # Now there is room for all, once what takes it on the standby is cleared away.
    os.ftruncate(filler, 0)
    for number in range(4):
        (a.path / f"new-{number}").write_bytes(os.urandom(2 * MIB))
    a.wait_stream("synced", seconds=40)
    b.wait_stream("synced")
    os.write(log, b"together again\n")
    assert_equal_trees(a.backing, b.backing)
    assert (b.path / "log").read_text() == "before\nalone\nstill alone\ntogether again\n"
    assert b.record["up_to_date"] and b.record["consistent"]
    os.close(filler)
    os.close(log)
