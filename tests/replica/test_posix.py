# SPDX-License-Identifier: Apache-2.0
"""Every operation of a file system, on the primary's mount, arrives at the standby."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from haoperator.replica._hotpath import fallocate, renameat2
from tests.replica.pair import Pair
from tests.replica.trees import assert_equal_trees

AT = os.open("/", os.O_PATH)
PUNCH_HOLE, KEEP_SIZE, ZERO_RANGE, COLLAPSE_RANGE = 2, 1, 16, 8


@pytest.fixture
def here(shared: Pair, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory on the primary's mount. Both copies are compared when the test is over."""
    path = shared.a.path / request.node.name.replace("/", "_")
    path.mkdir()
    yield path
    assert_equal_trees(shared.a.backing, shared.b.backing)
    assert shared.a.stream == "synced"
    assert shared.b.stream == "synced"


def exchange(one: Path, other: Path, flags: int = 2) -> None:
    renameat2(AT, os.fsencode(one), AT, os.fsencode(other), flags)


def test_files_and_directories(here: Path) -> None:
    (here / "empty").touch()
    (here / "small").write_bytes(b"small")
    (here / "large").write_bytes(os.urandom(3_000_000))
    (here / "sub" / "deep").mkdir(parents=True)
    (here / "sub" / "deep" / "file").write_text("down here")
    (here / "small").unlink()
    (here / "sub" / "gone").mkdir()
    (here / "sub" / "gone").rmdir()


def test_names_that_are_not_text(here: Path) -> None:
    with open(os.fsencode(here) + b"/\xff\xfe \n\t name", "wb") as file:
        file.write(b"x")
    (here / ("n" * 255)).write_text("long")
    with pytest.raises(OSError, match="File name too long"):
        (here / ("n" * 256)).touch()


def test_path_longer_than_the_kernel_takes_at_once(here: Path) -> None:
    fd = os.open(here, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 250, dir_fd=fd)
        below = os.open("d" * 250, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    file = os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    os.write(file, b"deep")
    os.fsync(file)
    os.close(file)
    os.close(fd)
    shutil.rmtree(here)
    here.mkdir()


def test_modes_owners_and_umask(here: Path) -> None:
    former = os.umask(0o027)
    try:
        (here / "masked").touch(0o777)
        (here / "dir").mkdir(0o777)
    finally:
        os.umask(former)
    assert stat.S_IMODE((here / "masked").stat().st_mode) == 0o750
    assert stat.S_IMODE((here / "dir").stat().st_mode) == 0o750
    (here / "masked").chmod(0o4711)
    os.chown(here / "dir", 1234, 4321)
    (here / "dir").chmod(0o2775)
    (here / "dir" / "inherits").touch()
    assert (here / "dir" / "inherits").stat().st_gid == 4321
    (here / "dir" / "sub").mkdir()
    assert (here / "dir" / "sub").stat().st_mode & stat.S_ISGID


def test_another_user_owns_what_it_makes_and_is_checked(here: Path) -> None:
    here.chmod(0o777)
    for above in here.parents:
        if not above.stat().st_mode & 0o001:
            above.chmod(above.stat().st_mode | 0o011)
    script = (
        "import os,sys; d=sys.argv[1]\n"
        "open(d+'/mine','w').write('x'); os.mkdir(d+'/dir'); os.symlink('t', d+'/link')\n"
        "try: open(d+'/private').read()\n"
        "except PermissionError: pass\n"
        "else: sys.exit('read it')\n"
    )
    (here / "private").write_text("secret")
    (here / "private").chmod(0o600)
    subprocess.run(["/usr/bin/python3", "-c", script, str(here)], check=True, user=1234, group=4321)
    for name in ("mine", "dir", "link"):
        assert (here / name).lstat().st_uid == 1234
        assert (here / name).lstat().st_gid == 4321


def test_writing_by_another_user_clears_set_id_bits(here: Path) -> None:
    for above in here.parents:
        if not above.stat().st_mode & 0o001:
            above.chmod(above.stat().st_mode | 0o011)
    (here / "tool").write_text("old")
    (here / "tool").chmod(0o6777)
    script = "import os,sys; f=os.open(sys.argv[1], os.O_WRONLY); os.write(f, b'new')"
    tool = str(here / "tool")
    subprocess.run(["/usr/bin/python3", "-c", script, tool], check=True, user=1234, group=4321)
    assert stat.S_IMODE((here / "tool").stat().st_mode) == 0o777


def test_times(here: Path) -> None:
    (here / "file").touch()
    os.utime(here / "file", ns=(1_000_000_001, 2_000_000_002))
    assert (here / "file").stat().st_mtime_ns == 2_000_000_002
    os.utime(here / "file", ns=(-5, -1_500_000_000))
    assert (here / "file").stat().st_mtime_ns == -1_500_000_000
    (here / "link").symlink_to("file")
    os.utime(here / "link", ns=(7, 8), follow_symlinks=False)
    os.utime(here, ns=(9, 10))
    (here / "written").write_text("x")
    os.utime(here / "written")


def test_links(here: Path) -> None:
    (here / "one").write_text("same")
    os.link(here / "one", here / "two")
    (here / "sub").mkdir()
    os.link(here / "two", here / "sub" / "three")
    (here / "one").unlink()
    with open(here / "two", "a") as file:
        file.write(" and more")
    assert (here / "sub" / "three").read_text() == "same and more"
    (here / "soft").symlink_to("nowhere/at/all")
    os.link(here / "soft", here / "soft2", follow_symlinks=False)
    os.chown(here / "soft", 5, 6, follow_symlinks=False)
    assert (here / "soft2").readlink() == Path("nowhere/at/all")


def test_rename(here: Path) -> None:
    (here / "a").write_text("a")
    (here / "b").write_text("b")
    (here / "a").rename(here / "c")
    (here / "c").replace(here / "b")
    (here / "d1" / "x").mkdir(parents=True)
    (here / "d2").mkdir()
    (here / "d1" / "x" / "file").write_text("moves along")
    (here / "d1" / "x").rename(here / "d2" / "y")
    (here / "d2" / "y" / "file").write_text("written at the new place")
    assert sorted(p.name for p in here.iterdir()) == ["b", "d1", "d2"]


def test_rename_flags(here: Path) -> None:
    (here / "a").write_text("a")
    (here / "b").mkdir()
    (here / "b" / "in").write_text("in b")
    exchange(here / "a", here / "b")
    assert (here / "a" / "in").read_text() == "in b"
    (here / "a" / "in").write_text("after the exchange")
    assert (here / "b").read_text() == "a"
    with pytest.raises(OSError) as caught:
        exchange(here / "a", here / "b", flags=1)
    assert caught.value.errno == errno.EEXIST


def test_rename_over_an_open_file(here: Path) -> None:
    (here / "new").write_text("new")
    with open(here / "old", "w+") as file:
        file.write("before")
        file.flush()
        (here / "new").rename(here / "old")
        file.write(" after")
        file.flush()
        file.seek(0)
        assert file.read() == "before after"
    assert (here / "old").read_text() == "new"


def test_extended_attributes(here: Path) -> None:
    (here / "file").touch()
    os.setxattr(here / "file", "user.a", b"1")
    os.setxattr(here / "file", "user.b", b"\0" * 1000)
    os.setxattr(here / "file", "trusted.c", b"t")
    os.setxattr(here / "file", "user.a", b"2", os.XATTR_REPLACE)
    os.removexattr(here / "file", "user.b")
    os.setxattr(here, "user.dir", b"d")
    (here / "link").symlink_to("file")
    os.setxattr(here / "link", "trusted.link", b"l", follow_symlinks=False)
    assert sorted(os.listxattr(here / "file")) == ["trusted.c", "user.a"]
    with pytest.raises(OSError, match="No data available"):
        os.getxattr(here / "file", "user.none")
    with pytest.raises(FileExistsError):
        os.setxattr(here / "file", "user.a", b"3", os.XATTR_CREATE)


def acl(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY = 0xFFFF_FFFF
SOMEBODY = acl((1, 7, NOBODY), (2, 6, 1234), (4, 5, NOBODY), (16, 7, NOBODY), (32, 0, NOBODY))


def test_access_control_lists(here: Path) -> None:
    os.setxattr(here, "system.posix_acl_default", SOMEBODY)
    (here / "inherits").touch(0o666)
    (here / "dir").mkdir(0o777)
    (here / "dir" / "below").touch()
    assert b"\xd2\x04" in os.getxattr(here / "inherits", "system.posix_acl_access")
    (here / "inherits").chmod(0o640)
    os.removexattr(here / "inherits", "system.posix_acl_access")


def test_truncate_and_sparse_files(here: Path) -> None:
    with open(here / "file", "wb") as file:
        file.write(b"x" * 100_000)
        file.truncate(50_000)
        file.truncate(5_000_000)
        file.seek(4_000_000)
        file.write(b"y")
    os.truncate(here / "file", 4_500_000)
    with open(here / "file", "rb") as file:
        assert os.lseek(file.fileno(), 0, os.SEEK_HOLE) < 4_000_000
    (here / "file2").write_bytes(b"to be emptied")
    with open(here / "file2", "wb"):
        pass


def test_fallocate(here: Path) -> None:
    with open(here / "file", "wb") as file:
        file.write(os.urandom(1_000_000))
        file.flush()
        fallocate(file.fileno(), 0, 0, 2_000_000)
        fallocate(file.fileno(), KEEP_SIZE, 0, 3_000_000)
        fallocate(file.fileno(), PUNCH_HOLE | KEEP_SIZE, 4096, 65536)
        fallocate(file.fileno(), ZERO_RANGE, 200_000, 10_000)
        assert os.fstat(file.fileno()).st_size == 2_000_000
        with pytest.raises(OSError, match="not supported"):  # the kernel's FUSE does not pass it on
            fallocate(file.fileno(), COLLAPSE_RANGE, 4096, 8192)


def test_shared_memory_mapping(here: Path) -> None:
    (here / "file").write_bytes(bytes(1_000_000))
    with open(here / "file", "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[5:9] = b"mmap"
        memory[700_000:700_004] = b"mmap"
        memory.flush()
        with open(here / "file", "r+b") as other:
            other.seek(100)
            other.write(b"written")
        assert memory[100:107] == b"written"
        memory[900_000:900_004] = b"late"
    assert (here / "file").read_bytes()[900_000:900_004] == b"late"


def test_nameless_files_that_get_a_name(here: Path) -> None:
    fd = os.open(here, os.O_TMPFILE | os.O_RDWR, 0o640)
    os.write(fd, b"made in private")
    os.link(f"/proc/self/fd/{fd}", here / "published", src_dir_fd=AT, follow_symlinks=True)
    os.write(fd, b", then more")
    os.close(fd)
    os.close(os.open(here, os.O_TMPFILE | os.O_RDWR))
    assert (here / "published").read_text() == "made in private, then more"


def test_open_files_without_a_name(here: Path) -> None:
    with open(here / "file", "w+b") as file:
        file.write(b"1")
        file.flush()
        (here / "file").unlink()
        file.write(b"2")
        file.flush()
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), 0o600)
        os.ftruncate(file.fileno(), 100)
        file.seek(0)
        assert file.read(2) == b"12"


def test_append(here: Path) -> None:
    writers = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import os,sys\n"
                "f=os.open(sys.argv[1], os.O_WRONLY|os.O_APPEND|os.O_CREAT)\n"
                "for i in range(300): os.write(f, sys.argv[2].encode()*63+b'\\n')",
                str(here / "log"),
                letter,
            ]
        )
        for letter in "abc"
    ]
    for writer in writers:
        assert writer.wait() == 0
    lines = (here / "log").read_text().splitlines()
    assert len(lines) == 900
    assert set(lines) == {"a" * 63, "b" * 63, "c" * 63}


def test_special_files(here: Path) -> None:
    os.mkfifo(here / "fifo", 0o640)
    os.mknod(here / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(here / "block", stat.S_IFBLK | 0o600, os.makedev(259, 70_000))
    os.mknod(here / "plain", stat.S_IFREG | 0o600)
    with socket.socket(socket.AF_UNIX) as sock, contextlib.chdir(here):
        sock.bind("sock")
    assert (here / "block").stat().st_rdev == os.makedev(259, 70_000)


def test_copying(here: Path) -> None:
    (here / "from").write_bytes(os.urandom(300_000))
    with open(here / "from", "rb") as source, open(here / "to", "wb") as target:
        copied = 0
        while copied < 300_000:
            copied += os.copy_file_range(source.fileno(), target.fileno(), 300_000 - copied)
    shutil.copy2(here / "from", here / "again")
    assert (here / "to").read_bytes() == (here / "from").read_bytes()


def test_extended_attributes_of_an_open_file(here: Path) -> None:
    with open(here / "file", "wb") as file:
        fd = file.fileno()
        file.write(b"x")
        file.flush()
        os.setxattr(fd, "user.small", b"1")
        os.setxattr(fd, "user.large", b"2" * 3000)
        os.setxattr(fd, "user.empty", b"")
        assert os.getxattr(fd, "user.small") == b"1"
        assert os.getxattr(here / "file", "user.large") == b"2" * 3000
        assert os.getxattr(fd, "user.empty") == b""
        with pytest.raises(OSError, match="No data available"):
            os.getxattr(fd, "user.none")
    assert os.getxattr(here / "file", "user.small") == b"1"


def test_many_callers_sync_one_file_at_once(here: Path) -> None:
    """One fsync of the disk may serve several of them; each gets its answer."""
    with open(here / "file", "wb") as file, ThreadPoolExecutor(16) as callers:

        def write_and_sync(n: int) -> None:
            os.pwrite(file.fileno(), b"%4d" % n, 4 * n)
            (os.fsync if n % 3 else os.fdatasync)(file.fileno())

        for future in [callers.submit(write_and_sync, n) for n in range(400)]:
            future.result(timeout=30)
    assert (here / "file").read_bytes() == b"".join(b"%4d" % n for n in range(400))


def test_sync_calls(here: Path) -> None:
    fd = os.open(here, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    with open(here / "file", "wb") as file:
        file.write(b"x")
        file.flush()
        os.fsync(file.fileno())
        os.fdatasync(file.fileno())
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(here / "file", os.O_WRONLY | os.O_DSYNC)
    os.write(fd, b"y")
    assert libc.syncfs(fd) == 0
    os.close(fd)


def test_locks(here: Path) -> None:
    import fcntl

    with open(here / "file", "w") as one, open(here / "file", "w") as other:
        fcntl.flock(one, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.flock(one, fcntl.LOCK_UN)
        fcntl.lockf(other, fcntl.LOCK_EX)


def test_large_directory_and_removal_while_reading(here: Path) -> None:
    for number in range(1500):
        (here / f"file-{number}").touch()
    assert len(list(here.iterdir())) == 1500
    with os.scandir(here) as entries:
        for entry in entries:
            os.unlink(entry.path)
    assert list(here.iterdir()) == []


def test_errors_change_nothing(here: Path) -> None:
    (here / "dir").mkdir()
    (here / "dir" / "in").touch()
    with pytest.raises(OSError, match="not empty"):
        (here / "dir").rmdir()
    with pytest.raises(FileNotFoundError):
        (here / "none").unlink()
    with pytest.raises(FileExistsError):
        (here / "dir").mkdir()
    with pytest.raises(OSError, match="Invalid argument"):
        (here / "dir").rename(here / "dir" / "below")
    with pytest.raises(IsADirectoryError):
        (here / "dir").unlink()


def test_execution_and_statfs(here: Path) -> None:
    shutil.copy("/bin/true", here / "true")
    assert subprocess.run([here / "true"], check=False).returncode == 0
    assert os.statvfs(here).f_blocks > 0


def test_direct_io(here: Path) -> None:
    with mmap.mmap(-1, 8192) as buffer:
        buffer.write(b"d" * 8192)
        fd = os.open(here / "file", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
        try:
            assert os.writev(fd, [buffer]) == 8192
            assert os.preadv(fd, [buffer], 0) == 8192
        finally:
            os.close(fd)
