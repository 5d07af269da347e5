# SPDX-License-Identifier: Apache-2.0
"""Open files: without a name, renamed, appended to by several, sparse, mapped, copied."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from haoperator.replica._hotpath import fallocate, renameat2
from tests.replica.beside import ALICE, Beside, beside, failure, in_child, try_open
from tests.replica.pair import Pair
from tests.replica.test_posix import COLLAPSE_RANGE, KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE

AT_FDCWD = -100
WHITEOUT = 4


@pytest.fixture
def two(shared: Pair, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Beside]:
    with beside(shared, tmp_path, request.node.name) as both:
        yield both


def test_a_file_that_was_unlinked_while_open_lives_on(two: Beside) -> None:
    def use(root: Path) -> list[object]:
        fd = os.open("file", os.O_CREAT | os.O_RDWR, 0o644)
        os.write(fd, b"before")
        os.unlink("file")
        done: list[object] = [os.fstat(fd).st_nlink]
        os.write(fd, b" and after")
        os.ftruncate(fd, 12)
        os.fchmod(fd, 0o4711)
        os.fchown(fd, 3, 4)
        os.setxattr(fd, "user.a", b"b")
        os.posix_fallocate(fd, 0, 100_000)
        os.utime(fd, ns=(1, 2))
        os.fsync(fd)
        st = os.fstat(fd)
        done += [st.st_size, st.st_mode, st.st_uid, st.st_mtime_ns, os.listxattr(fd)]
        magic = f"/proc/self/fd/{fd}"
        done.append(failure(os.link, magic, "back", src_dir_fd=fd))
        done.append(failure(os.stat, "back"))
        again = os.open(magic, os.O_RDONLY)
        done.append(os.pread(again, 100, 0).rstrip(b"\0"))
        with open("file", "w") as other:
            other.write("another file of the same name")
        os.pwrite(fd, b"BEFORE", 0)
        done.append(os.pread(again, 6, 0))
        return done

    two.same(use)


def test_files_without_a_name_get_one_only_if_they_may(two: Beside) -> None:
    def publish(root: Path) -> list[object]:
        done: list[object] = []
        os.mkdir(f"dir-{os.getuid()}", 0o777)
        os.chdir(f"dir-{os.getuid()}")
        for flags in (0, os.O_EXCL):
            fd = os.open(".", os.O_TMPFILE | os.O_RDWR | flags, 0o640)
            os.write(fd, b"secret")
            os.setxattr(fd, "user.a", b"1")
            os.posix_fallocate(fd, 10_000, 10_000)
            os.ftruncate(fd, 15_000)
            done.append((os.fstat(fd).st_nlink, os.fstat(fd).st_mode, os.fstat(fd).st_uid))
            source = f"/proc/self/fd/{fd}"
            for name in ("first", "second", "first"):
                done.append(failure(os.link, source, name, src_dir_fd=fd))
            os.write(fd, b", more")
            done.append(os.fstat(fd).st_nlink)
            if not flags:
                os.unlink("first")
                os.write(fd, b" by the second name")
                os.fsync(fd)
            os.close(fd)
        done.append(sorted(os.listdir(".")))
        return done

    two.same(publish)
    two.same(publish, ALICE)


def test_a_rename_over_an_open_file(two: Beside) -> None:
    def replace(root: Path) -> list[object]:
        Path("new").write_text("new")
        Path("old").write_text("old")
        old, new = os.open("old", os.O_RDWR), os.open("new", os.O_RDWR)
        os.rename("new", "old")
        os.pwrite(old, b"OLD", 0)
        os.pwrite(new, b"NEW", 0)
        done: list[object] = [os.pread(old, 9, 0), os.fstat(old).st_nlink, Path("old").read_text()]
        os.ftruncate(old, 1)
        os.fsync(old)
        os.rename("old", "older")
        os.pwrite(new, b"er", 3)
        done.append(Path("older").read_text())
        done.append(failure(os.stat, "old"))
        return done

    two.same(replace)


def test_renames_that_are_refused_change_nothing(two: Beside) -> None:
    def rename(old: str, new: str, flags: int) -> str:
        return failure(renameat2, AT_FDCWD, old.encode(), AT_FDCWD, new.encode(), flags)

    def make(root: Path) -> None:
        for name in ("file", "other"):
            Path(name).write_text(name)
        for name in ("empty", "full/below", "full/dir"):
            os.makedirs(name)

    def attempt(root: Path) -> list[str]:
        names = ("file", "other", "empty", "full", "full/dir", "none", "file/in", "n" * 256, ".")
        flags = (1, 2, 3, 8)
        return [rename(old, new, flag) for old in names for new in names for flag in flags]

    two.same(make)
    two.same(attempt)
    two.same(lambda root: [rename("file", "dir/../full/below/file", 0), rename("full", "empty", 0)])


def test_whiteouts_are_refused_and_change_nothing(two: Beside) -> None:
    """A rename that leaves a whiteout is for overlay file systems: not on a replicated one."""
    (two.mounted / "file").write_text("x")

    def leave(root: Path) -> str:
        return failure(renameat2, AT_FDCWD, b"file", AT_FDCWD, b"other", WHITEOUT)

    assert in_child(leave, two.mounted) == "EINVAL"
    assert os.listdir(two.mounted) == ["file"]
    (two.mounted / "file").unlink()


def test_names_of_one_inode_show_the_same(two: Beside) -> None:
    def use(root: Path) -> list[object]:
        os.mkdir("dir")
        Path("one").write_text("1")
        for name in ("two", "dir/three"):
            os.link("one", name)
        done: list[object] = []
        with open("one", "r+b", buffering=0) as one, open("dir/three", "r+b", buffering=0) as three:
            one.write(b"first")
            done.append(three.read(10))
            os.unlink("one")
            os.chmod("two", 0o600)
            done.append((os.fstat(one.fileno()).st_mode, os.fstat(one.fileno()).st_nlink))
            os.truncate("two", 2)
            done.append(os.fstat(three.fileno()).st_size)
            one.write(b"second")
            done.append(Path("two").read_bytes())
            os.rename("two", "dir/three")
            done.append(sorted([*os.listdir("."), *os.listdir("dir")]))
            os.unlink("two")
            os.utime("dir/three", ns=(5, 6))
            done.append((os.fstat(one.fileno()).st_mtime_ns, os.fstat(one.fileno()).st_nlink))
            done.append(len({os.stat(name).st_ino for name in ("dir/three",)}))
        return done

    two.same(use)


def test_appending_by_two_processes_at_once(two: Beside) -> None:
    """Nothing is lost, nothing torn, whoever opened how."""

    def append(root: Path) -> list[object]:
        children = []
        for letter in b"abcd":
            child = os.fork()
            if child == 0:
                fd = os.open("log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
                for number in range(200):
                    os.write(fd, bytes([letter]) * (5 + number * 7 % 5000) + b"\n")
                os._exit(0)
            children.append(child)
        statuses = [os.waitpid(child, 0)[1] for child in children]
        lines = Path("log").read_bytes().splitlines()
        Path("log").write_bytes(b"\n".join(sorted(lines)))
        return [statuses, len(lines), {len(set(line)) for line in lines}]

    assert two.same(append) == [[0] * 4, 800, {1}]


def holes(fd: int) -> list[tuple[int, int]]:
    """Where the data lies, by SEEK_DATA and SEEK_HOLE."""
    found, at = [], 0
    with contextlib.suppress(OSError):
        while True:
            start = os.lseek(fd, at, os.SEEK_DATA)
            at = os.lseek(fd, start, os.SEEK_HOLE)
            found.append((start, at))
    return found


def test_holes(two: Beside) -> None:
    def dig(root: Path) -> list[object]:
        fd = os.open("file", os.O_CREAT | os.O_RDWR)
        os.pwrite(fd, b"x" * 1_000_000, 0)
        os.fsync(fd)
        done: list[object] = []
        for mode, offset, length in (
            (PUNCH_HOLE | KEEP_SIZE, 100_000, 200_000),
            (PUNCH_HOLE | KEEP_SIZE, 900_000, 900_000),
            (ZERO_RANGE, 500_000, 10_000),
            (ZERO_RANGE, 1_200_000, 10_000),
            (ZERO_RANGE | KEEP_SIZE, 2_000_000, 10_000),
            (0, 3_000_000, 5_000),
            (KEEP_SIZE, 4_000_000, 5_000),
            (PUNCH_HOLE, 0, 4096),
            (0, 0, 0),
            (0, -1, 5),
            (KEEP_SIZE, 1 << 62, 1 << 62),
        ):
            done.append(failure(fallocate, fd, mode, offset, length))
            done.append((os.fstat(fd).st_size, os.pread(fd, 10, 99_995)))
        os.ftruncate(fd, 10_000_000)
        os.pwrite(fd, b"far", 8_000_000)
        os.fsync(fd)
        done.append(holes(fd))
        for offset in (0, 99_999, 5_000_000, 9_999_999, 10_000_000, 20_000_000, -1):
            for whence in (os.SEEK_DATA, os.SEEK_HOLE):
                with contextlib.suppress(OSError):
                    done.append(os.lseek(fd, offset, whence))
                done.append(failure(os.lseek, fd, offset, whence))
        return done

    two.same(dig)


def test_ranges_cannot_be_collapsed_or_inserted(two: Beside) -> None:
    """The kernel's FUSE has no way to say it: the error of a file system that cannot."""
    path = two.mounted / "file"
    path.write_bytes(b"x" * 20_000)
    with open(path, "r+b") as file:
        for mode in (COLLAPSE_RANGE, 32):
            assert failure(fallocate, file.fileno(), mode, 4096, 4096) == "ENOTSUP"
    assert path.read_bytes() == b"x" * 20_000
    path.unlink()


def test_sizes_at_the_edge(two: Beside) -> None:
    """Offsets beyond what the file system can, and beyond what the process may."""

    def attempt(root: Path) -> list[object]:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        fd = os.open("file", os.O_CREAT | os.O_RDWR)
        done: list[object] = [
            failure(os.pwrite, fd, b"x", 1 << 62),
            failure(os.pwrite, fd, b"x", (1 << 44) - 2),
            failure(os.ftruncate, fd, 1 << 62),
            failure(os.ftruncate, fd, 1 << 43),
            os.fstat(fd).st_size,
            failure(os.truncate, "file", 0),
        ]
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        done.append(os.pwrite(fd, b"x" * 8_000, 5_000))
        done += [
            failure(os.pwrite, fd, b"x", 10_000),
            failure(os.ftruncate, fd, 10_001),
            failure(os.posix_fallocate, fd, 0, 10_001),
            os.fstat(fd).st_size,
        ]
        return done

    two.same(attempt)


def test_mappings_shared_and_private_of_a_growing_file(two: Beside) -> None:
    def use(root: Path) -> list[object]:
        fd = os.open("file", os.O_CREAT | os.O_RDWR)
        os.ftruncate(fd, 20_000)
        shared = mmap.mmap(fd, 20_000, mmap.MAP_SHARED)
        os.ftruncate(fd, 5_000)
        private = mmap.mmap(fd, 5_000, mmap.MAP_PRIVATE)
        private[0:4] = b"mine"
        shared[4_990:5_000] = b"end of old"
        os.ftruncate(fd, 20_000)
        shared[10_000:10_003] = b"new"
        os.pwrite(fd, b"by write", 15_000)
        done: list[object] = [shared[15_000:15_008], os.pread(fd, 3, 10_000), os.pread(fd, 4, 0)]
        shared.flush()
        child = os.fork()
        if child == 0:
            shared[19_990:20_000] = b"from child"
            os._exit(0)
        os.waitpid(child, 0)
        done += [os.pread(fd, 10, 19_990), private[0:6]]
        os.ftruncate(fd, 3)
        done += [os.fstat(fd).st_size, shared[0:10]]
        os.ftruncate(fd, 8_000)
        done.append(os.pread(fd, 8_000, 0).strip(b"\0"))
        shared.close()
        os.close(fd)
        return done

    two.same(use)


def test_copies_inside_the_kernel(two: Beside) -> None:
    content = os.urandom(300_000)

    def copy(root: Path) -> list[object]:
        Path("from").write_bytes(content)
        one, other = os.open("from", os.O_RDONLY), os.open("to", os.O_RDWR | os.O_CREAT, 0o644)
        copied = 0
        while got := os.copy_file_range(one, other, 100_000, 1_000 + copied, copied):
            copied += got
        return [
            copied,
            Path("to").read_bytes() == content[1_000:],
            failure(os.copy_file_range, other, other, 100, 0, 50),
            failure(os.copy_file_range, other, one, 100, 0, 0),
            os.copy_file_range(other, other, 10_000, 0, 290_000),
            os.sendfile(other, one, 0, 5_000),
        ]

    two.same(copy)


def test_copies_between_the_mount_and_another_file_system(two: Beside) -> None:
    """The kernel refuses copy_file_range(2) between two types of file systems; programs know."""
    outside, inside = two.plain / "file", two.mounted / "file"
    outside.write_bytes(os.urandom(300_000))
    inside.touch()
    for source, target in ((outside, inside), (inside, outside)):
        with open(source, "rb") as one, open(target, "r+b") as other:
            refused = failure(os.copy_file_range, one.fileno(), other.fileno(), 100)
        assert refused == "EXDEV"
        subprocess.run(["cp", "--preserve", source, target], check=True)
        assert inside.read_bytes() == outside.read_bytes()


def test_direct_io_and_the_page_cache_see_the_same(two: Beside) -> None:
    def use(root: Path) -> list[object]:
        buffer = mmap.mmap(-1, 65_536)
        buffer.write(b"d" * 65_536)
        direct = os.open("file", os.O_CREAT | os.O_RDWR | os.O_DIRECT)
        cached = os.open("file", os.O_RDWR)
        done: list[object] = [os.pwritev(direct, [buffer], 0)]
        os.pwrite(cached, b"cached", 4_096)
        done += [os.preadv(direct, [buffer], 0), buffer[4_090:4_106]]
        buffer[0:4] = b"four"
        done += [os.pwritev(direct, [buffer], 131_072), os.pread(cached, 6, 131_072)]
        done += [os.preadv(direct, [buffer], 131_072 + 61_440), os.fstat(direct).st_size]
        buffer[:] = b"a" * 65_536  # what lies behind the end of a short read is anything
        append = os.open("file", os.O_WRONLY | os.O_DIRECT | os.O_APPEND)
        done += [os.writev(append, [buffer]), os.fstat(direct).st_size]
        fcntl.fcntl(direct, fcntl.F_SETFL, 0)
        done.append(os.pwrite(direct, b"odd", 7))
        return done

    two.same(use)


def test_modes_of_opening(two: Beside) -> None:
    def attempt(root: Path) -> list[object]:
        Path("file").write_text("content")
        os.mkdir("dir")
        os.symlink("file", "link")
        os.symlink("nowhere", "broken")
        os.symlink("loop", "loop")
        flags = {
            "create": os.O_CREAT | os.O_WRONLY,
            "exclusive": os.O_CREAT | os.O_EXCL | os.O_WRONLY,
            "truncate": os.O_TRUNC | os.O_RDONLY,
            "directory": os.O_DIRECTORY,
            "nofollow": os.O_NOFOLLOW,
            "path": os.O_PATH | os.O_NOFOLLOW,
            "write": os.O_WRONLY,
            "noatime": os.O_NOATIME,
            "sync": os.O_SYNC | os.O_RDWR,
            "both": os.O_WRONLY | os.O_RDWR,
        }
        done: list[object] = []
        names = ("file", "dir", "link", "broken", "loop", "file/", "dir/", "none/x", "file/x", "")
        for flag in flags.values():
            for name in names:
                done.append(failure(try_open, name, flag, 0o600))
        done += [os.stat("file").st_size, sorted(os.listdir("."))]
        os.chmod("file", 0o400)
        fd = os.open("created read-only", os.O_CREAT | os.O_RDWR, 0o400)
        done.append(os.write(fd, b"but written"))
        return done

    two.same(attempt)
    two.same(lambda root: failure(try_open, "dir", os.O_NOATIME), ALICE)


def test_descriptors_know_what_they_may(two: Beside) -> None:
    def attempt(root: Path) -> list[str]:
        Path("file").write_text("content")
        os.mkdir("dir")
        reading, writing = os.open("file", os.O_RDONLY), os.open("file", os.O_WRONLY)
        directory, path = os.open("dir", os.O_RDONLY), os.open("file", os.O_PATH)
        actions: list[Callable[[int], object]] = [
            lambda fd: os.read(fd, 3),
            lambda fd: os.write(fd, b"x"),
            lambda fd: os.ftruncate(fd, 3),
            lambda fd: os.fsync(fd),
            lambda fd: os.fchmod(fd, 0o700),
            lambda fd: os.posix_fallocate(fd, 0, 10),
            lambda fd: os.listdir(fd),
            lambda fd: os.lseek(fd, 0, os.SEEK_DATA),
            lambda fd: os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED),
            lambda fd: os.readlink(f"/proc/self/fd/{fd}").rsplit("/", 1)[1],
        ]
        return [
            failure(action, fd) for action in actions for fd in (reading, writing, directory, path)
        ]

    two.same(attempt)
