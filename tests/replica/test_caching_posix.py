# SPDX-License-Identifier: Apache-2.0
"""`durability = "fsync"`: every test of test_posix.py, and what is different with write caches."""

from __future__ import annotations

import mmap
import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from haoperator.replica._hotpath import fallocate
from tests.replica import test_posix
from tests.replica.pair import Pair
from tests.replica.trees import assert_equal_trees

OTHERWISE = ("test_truncate_and_sparse_files",)
"""SEEK_HOLE: see test_no_hole_is_found_where_data_is_not_written_yet."""

for _name, _test in vars(test_posix).items():
    if _name.startswith("test_") and _name not in OTHERWISE:
        globals()[_name] = _test


@pytest.fixture
def here(shared_caching: Pair, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory on the primary's mount. All copies are compared when the test is over."""
    a, b = shared_caching.a, shared_caching.b
    path = a.path / request.node.name.replace("/", "_")
    path.mkdir()
    yield path
    assert_equal_trees(a.backing, b.backing)
    assert_equal_trees(a.path, b.path)
    assert a.stream == "synced"
    assert b.stream == "synced"


def test_no_hole_is_found_where_data_is_not_written_yet(here: Path) -> None:
    """A copy that skips holes would be empty."""
    with open(here / "file", "w+b", buffering=0) as file:
        file.write(b"x" * 100_000)
        assert os.lseek(file.fileno(), 0, os.SEEK_DATA) == 0
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) == 100_000
        subprocess.run(["cp", "--sparse=auto", here / "file", here / "copy"], check=True)
    assert (here / "copy").read_bytes() == b"x" * 100_000


def test_truncation_meets_pages_that_are_not_written_yet(here: Path) -> None:
    with open(here / "file", "w+b", buffering=0) as file:
        file.write(b"x" * 100_000)
        file.truncate(50_000)
        file.truncate(5_000_000)
        file.seek(4_000_000)
        file.write(b"y")
        file.truncate(4_500_000)
        os.truncate(here / "file", 4_000_001)
        file.seek(4_000_001)
        file.write(b"end")
    expected = b"x" * 50_000 + bytes(3_950_000) + b"yend"
    assert (here / "file").read_bytes() == expected
    (here / "file2").write_bytes(b"to be emptied")
    with open(here / "file2", "wb"):
        pass
    assert (here / "file2").stat().st_size == 0


def test_fallocate_meets_pages_that_are_not_written_yet(here: Path) -> None:
    with open(here / "file", "w+b", buffering=0) as file:
        file.write(b"x" * 100_000)
        fallocate(file.fileno(), test_posix.PUNCH_HOLE | test_posix.KEEP_SIZE, 4096, 8192)
        fallocate(file.fileno(), test_posix.ZERO_RANGE, 90_000, 20_000)
        fallocate(file.fileno(), 0, 0, 200_000)
    expected = b"x" * 4096 + bytes(8192) + b"x" * (90_000 - 12_288) + bytes(110_000)
    assert (here / "file").read_bytes() == expected


def test_time_of_change_is_the_kernels_on_both_nodes(here: Path, shared_caching: Pair) -> None:
    def times(name: str) -> set[int]:
        nodes = (shared_caching.a, shared_caching.b)
        below = [(node.backing / here.name / name).stat().st_mtime_ns for node in nodes]
        return {(here / name).stat().st_mtime_ns, *below}

    long_ago = 1_500_000_000_000_000_007
    with open(here / "written", "wb", buffering=0) as written:
        written.write(b"x" * 500_000)
        told = os.fstat(written.fileno()).st_mtime_ns
    with open(here / "set", "wb", buffering=0) as changed:
        changed.write(b"x" * 500_000)
        os.utime(changed.fileno(), ns=(1, long_ago))
    with open(here / "mapped", "w+b") as file:
        file.truncate(500_000)
        os.utime(file.fileno(), ns=(1, long_ago))
        with mmap.mmap(file.fileno(), 0) as memory:
            memory[300_000:300_006] = b"mapped"
            memory.flush()
        os.fsync(file.fileno())
        mapped = os.fstat(file.fileno()).st_mtime_ns
    (here / "moved").write_bytes(b"moved")
    moved = (here / "moved").stat().st_mtime_ns
    (here / "moved").rename(here / "to")
    os.link(here / "to", here / "linked")
    (here / "to").chmod(0o640)
    os.sync()
    assert_equal_trees(shared_caching.a.backing, shared_caching.b.backing)
    assert times("written") == {told}
    assert times("set") == {long_ago}
    assert times("mapped") == {mapped}
    assert mapped > long_ago
    assert times("linked") == {moved}


def test_late_changes_of_files_without_their_name(here: Path) -> None:
    """What the kernel writes back after an unlink reaches nobody, and nobody's file."""
    fds = []
    for number in range(50):
        fd = os.open(here / "same", os.O_CREAT | os.O_EXCL | os.O_RDWR)
        os.write(fd, b"%d" % (number % 10) * 20_000)
        if number % 2:
            (here / "same").rename(here / "kept")
        else:
            (here / "same").unlink()
        fds.append(fd)
    (here / "same").write_text("last")
    for number, fd in enumerate(fds):
        os.ftruncate(fd, 30_000)
        os.fsync(fd)
        assert os.pread(fd, 20_000, 0) == b"%d" % (number % 10) * 20_000
        os.close(fd)
    assert (here / "same").read_text() == "last"
    assert (here / "kept").read_bytes() == b"9" * 20_000 + bytes(10_000)


def test_opened_for_writing_alone_and_yet_read_by_the_kernel(here: Path) -> None:
    (here / "file").write_bytes(b"0123456789" * 1000)
    subprocess.run(["sh", "-c", "echo 3 > /proc/sys/vm/drop_caches"], check=True)
    fd = os.open(here / "file", os.O_WRONLY)
    os.pwrite(fd, b"abc", 5001)  # a part of a page that is not cached
    os.close(fd)
    log = os.open(here / "file", os.O_WRONLY | os.O_APPEND)
    os.write(log, b"end")
    os.close(log)
    expected = bytearray(b"0123456789" * 1000 + b"end")
    expected[5001:5004] = b"abc"
    assert (here / "file").read_bytes() == expected


@pytest.mark.parametrize("flag", [os.O_SYNC, os.O_DSYNC])
def test_synchronous_write_is_on_both_nodes(here: Path, shared_caching: Pair, flag: int) -> None:
    fd = os.open(here / "file", os.O_CREAT | os.O_WRONLY | flag)
    try:
        for number in range(3):
            os.write(fd, b"%d" % number * 3000)
            for node in (shared_caching.a, shared_caching.b):
                assert (node.backing / here.name / "file").stat().st_size == 3000 * (number + 1)
    finally:
        os.close(fd)


def test_direct_and_cached_writes_see_each_other(here: Path) -> None:
    with mmap.mmap(-1, 4096) as buffer, open(here / "file", "w+b", buffering=0) as cached:
        cached.write(b"c" * 16384)
        direct = os.open(here / "file", os.O_RDWR | os.O_DIRECT)
        try:
            assert os.preadv(direct, [buffer], 8192) == 4096
            assert buffer[:] == b"c" * 4096
            buffer[:] = b"d" * 4096
            assert os.pwritev(direct, [buffer], 4096) == 4096
            assert os.pwritev(direct, [buffer], 20480) == 4096
        finally:
            os.close(direct)
        cached.seek(0)
        cached.write(b"e" * 100)
        cached.seek(0)
        found = cached.read()
    expected = b"e" * 100 + b"c" * 3996 + b"d" * 4096 + b"c" * 8192 + bytes(4096) + b"d" * 4096
    assert found == expected
    assert (here / "file").read_bytes() == expected


def test_set_id_bits_go_before_the_data_comes(here: Path) -> None:
    for above in here.parents:
        if not above.stat().st_mode & 0o001:
            above.chmod(above.stat().st_mode | 0o011)
    (here / "tool").write_text("old")
    (here / "tool").chmod(0o6777)
    script = (
        "import os,sys; f=os.open(sys.argv[1], os.O_WRONLY); os.write(f, b'new'); "
        "sys.exit(os.stat(sys.argv[1]).st_mode & 0o6000)"
    )
    tool = str(here / "tool")
    subprocess.run(["/usr/bin/python3", "-c", script, tool], check=True, user=1234, group=4321)
    (here / "tool").chmod(0o6777)
    assert stat.S_IMODE((here / "tool").stat().st_mode) == 0o6777


def test_shared_mapping_is_at_the_peer_after_msync(here: Path, shared_caching: Pair) -> None:
    (here / "file").write_bytes(bytes(200_000))
    with open(here / "file", "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[100_000:100_004] = b"mmap"
        memory.flush()
        for node in (shared_caching.a, shared_caching.b):
            found = (node.backing / here.name / "file").read_bytes()
            assert found[100_000:100_004] == b"mmap"
