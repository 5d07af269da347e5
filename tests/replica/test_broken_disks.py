# SPDX-License-Identifier: Apache-2.0
"""Errors of the disk: on the primary the caller is told, on the standby it is outdated.

A loop device over a shortened file fails to read with EIO, and one in a pool without room
fails to write with ENOSPC, when the data are brought to disk.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.replica.beside import failure
from tests.replica.images import MIB, UNJOURNALED, DiskPair
from tests.replica.pair import Pair, wait_for
from tests.replica.test_roles import fresh
from tests.replica.trees import assert_equal_trees, tree_of

SIZE = 24 * MIB
BLOCKS = 8 * MIB


def drop_from_memory(path: Path) -> None:
    """So that reading comes from the disk."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def goes_on_alone(pair: Pair, action: Callable[[], object], what: str) -> None:
    """`action` makes the standby outdated, loudly, and returns as if nothing was."""
    done: list[object] = []
    worker = threading.Thread(target=lambda: done.append(action()))
    worker.start()
    wait_for(lambda: not pair.b.record["up_to_date"], "b knows that it is outdated")
    pair.a.wait_stream("held")
    pair.a.call("continue_alone", generation=fresh(), within=60.0)
    worker.join(30)
    assert len(done) == 1, "the application failed"
    assert f"cannot apply what the primary did, this copy is outdated: {what}" in pair.b.log_text()
    assert f"the standby is outdated: {what}" in pair.a.log_text()
    (pair.a.path / "afterwards").write_text("the application goes on")


def test_a_primary_that_cannot_read_tells_the_caller(on_disks: DiskPair) -> None:
    """For a read, and for a write that has to read the rest of its block."""
    disk = on_disks.disk("a", SIZE, UNJOURNALED)
    pair = on_disks.replicate()
    path = pair.a.path / "file"
    path.write_bytes(b"x" * BLOCKS)
    drop_from_memory(path)
    drop_from_memory(pair.a.backing / "file")
    copy = tree_of(pair.b.backing)["file"]
    disk.lose(4 * MIB)
    fd = os.open(path, os.O_RDWR)
    assert failure(os.pread, fd, 4096, BLOCKS - 4096) == "EIO"
    assert failure(os.pwrite, fd, b"y", BLOCKS - 50_000) == "EIO"
    assert failure(os.pread, fd, 4096, BLOCKS - 8192) == "EIO"
    os.close(fd)
    assert (pair.a.stream, pair.b.stream) == ("synced", "synced")
    assert tree_of(pair.b.backing, times=False)["file"][4] == copy[4]
    mtime = os.stat(pair.a.backing / "file").st_mtime_ns
    wait_for(lambda: os.stat(pair.b.backing / "file").st_mtime_ns == mtime, "the same time")


def test_a_primary_that_cannot_bring_data_to_disk_says_so_at_every_fsync(
    on_disks: DiskPair,
) -> None:
    """The kernel reports it once; a retry must not hear that all is well. A new opening may."""
    disk = on_disks.disk("a", SIZE, UNJOURNALED)
    pair = on_disks.replicate()
    path = pair.a.path / "file"
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    other = os.open(path, os.O_RDWR)
    os.fsync(fd)
    with disk.exhausted():
        os.write(fd, os.urandom(4 * MIB))
        assert failure(os.fsync, fd) == "ENOSPC"
    for again in (other, fd, other):
        assert failure(os.fsync, again) == "ENOSPC"
        assert failure(os.fdatasync, again) == "ENOSPC"
    os.close(fd)
    os.close(other)
    os.sync()  # what was dirty when there was no room is through, and so is its error
    with open(path, "r+b", buffering=0) as file:
        file.write(os.urandom(4 * MIB))
        os.fsync(file.fileno())
    assert_equal_trees(pair.a.backing, pair.b.backing)
    assert (pair.a.stream, pair.b.stream) == ("synced", "synced")


def test_a_standby_that_cannot_bring_data_to_disk_is_outdated(on_disks: DiskPair) -> None:
    disk = on_disks.disk("b", SIZE, UNJOURNALED)
    pair = on_disks.replicate()
    fd = os.open(pair.a.path / "file", os.O_CREAT | os.O_RDWR)
    with disk.exhausted():
        os.write(fd, os.urandom(4 * MIB))
        goes_on_alone(pair, lambda: os.fsync(fd), os.strerror(errno.ENOSPC))
    os.close(fd)
    pair.a.wait_stream("synced")
    assert_equal_trees(pair.a.backing, pair.b.backing)


def test_a_standby_that_cannot_write_is_outdated(on_disks: DiskPair) -> None:
    disk = on_disks.disk("b", SIZE, UNJOURNALED)
    pair = on_disks.replicate()
    path = pair.a.path / "file"
    path.write_bytes(b"x" * BLOCKS)
    drop_from_memory(pair.b.backing / "file")
    disk.lose(4 * MIB)
    fd = os.open(path, os.O_RDWR)
    goes_on_alone(pair, lambda: os.pwrite(fd, b"y", BLOCKS - 50_000), os.strerror(errno.EIO))
    os.close(fd)


def test_a_standby_that_cannot_read_does_not_become_complete(on_disks: DiskPair) -> None:
    """A comparison finds what is unreadable: no copy that is called up to date hides it."""
    disk = on_disks.disk("b", SIZE, UNJOURNALED)
    pair = on_disks.replicate()
    path = pair.a.path / "file"
    path.write_bytes(b"x" * BLOCKS)
    drop_from_memory(pair.b.backing / "file")
    disk.lose(4 * MIB)
    pair.b.call("mark_outdated")
    pair.a.wait_stream("held")
    pair.a.call("continue_alone", generation=fresh(), within=60.0)
    wait_for(lambda: "Input/output error" in pair.b.log_text(), "it is said")
    assert not pair.b.record["consistent"]
    path.write_bytes(b"the application goes on")
    with pytest.raises(RuntimeError, match="mixture"):
        pair.b.call("become_primary", generation=fresh())
