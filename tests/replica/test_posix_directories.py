# SPDX-License-Identifier: Apache-2.0
"""Directories: huge ones, ones that change while they are read, ones that were removed."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from haoperator.replica._hotpath import renameat2
from tests.replica.beside import Beside, beside, failure, in_child
from tests.replica.pair import Pair

MANY = 100_000
MOST_SECONDS = 15.0
"""For reading MANY names, and for whoever works meanwhile: 0.4 s and 0.2 s were measured."""
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.opendir.restype = ctypes.c_void_p
LIBC.readdir64.restype = ctypes.c_void_p
LIBC.telldir.restype = ctypes.c_long


class Entry(ctypes.Structure):
    """`struct dirent64`."""

    _fields_ = (
        ("inode", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("length", ctypes.c_uint16),
        ("kind", ctypes.c_uint8),
        ("name", ctypes.c_char * 256),
    )


class Reader:
    """An open directory, with telldir(3) and seekdir(3)."""

    def __init__(self, path: str | Path) -> None:
        self._dir = LIBC.opendir(os.fsencode(path))
        assert self._dir

    def read(self) -> Entry | None:
        found = LIBC.readdir64(ctypes.c_void_p(self._dir))
        return Entry.from_address(found) if found else None

    def tell(self) -> int:
        return int(LIBC.telldir(ctypes.c_void_p(self._dir)))

    def seek(self, position: int) -> None:
        LIBC.seekdir(ctypes.c_void_p(self._dir), ctypes.c_long(position))

    def rewind(self) -> None:
        LIBC.rewinddir(ctypes.c_void_p(self._dir))

    def rest(self) -> list[str]:
        names = []
        while (entry := self.read()) is not None:
            names.append(entry.name.decode())
        return names

    def close(self) -> None:
        LIBC.closedir(ctypes.c_void_p(self._dir))


@pytest.fixture
def two(shared: Pair, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Beside]:
    with beside(shared, tmp_path, request.node.name) as both:
        yield both


def test_positions_stay_valid_while_names_come_and_go(two: Beside) -> None:
    """What is there all the time is read once, whatever else happens between two reads."""

    def walk(root: Path) -> list[object]:
        lasting = {f"lasting-{number}" for number in range(600)}
        for name in lasting:
            Path(name).touch()
        for number in range(300):
            Path(f"passing-{number}").touch()
        reader = Reader(".")
        places, seen = [], []
        while (entry := reader.read()) is not None:
            name = entry.name.decode()
            seen.append(name)
            places.append((reader.tell(), len(seen)))
            if name.startswith("passing"):
                os.unlink(name)
                Path(f"new-{name}").touch()
        done: list[object] = [
            sorted(name for name in seen if name in lasting) == sorted(lasting),
            len(seen) == len(set(seen)),
        ]
        for place, count in places[:: len(places) // 7]:
            reader.seek(place)
            rest = [name for name in reader.rest() if name in lasting]
            done.append(rest == [name for name in seen[count:] if name in lasting])
        reader.rewind()
        done.append(sorted(reader.rest()) == sorted([".", "..", *os.listdir(".")]))
        reader.close()
        return done

    assert set(two.same(walk)) == {True}


def test_entries_tell_inodes_and_kinds(two: Beside) -> None:
    def look(root: Path) -> list[tuple[str, int, bool]]:
        os.mkdir("dir")
        os.mkdir("dir/sub")
        os.symlink("x", "dir/link")
        os.mkfifo("dir/fifo")
        Path("dir/file").touch()
        os.mknod("dir/device", 0o20666, os.makedev(1, 3))
        reader = Reader("dir")
        found = []
        while (entry := reader.read()) is not None:
            name = entry.name.decode()
            there = os.lstat(f"dir/{name}").st_ino
            found.append((name, entry.kind, entry.inode == there))
        reader.close()
        return sorted(found)

    assert all(right for _, _, right in two.same(look))


def test_a_directory_that_was_removed_under_somebody(two: Beside) -> None:
    def stay(root: Path) -> list[object]:
        os.mkdir("dir")
        fd = os.open("dir", os.O_RDONLY)
        os.chdir("dir")
        os.rmdir("../dir")
        done: list[object] = [os.fstat(fd).st_nlink]
        for action in (
            lambda: os.listdir("."),
            lambda: os.mkdir("new"),
            lambda: os.close(os.open("new", os.O_CREAT | os.O_WRONLY)),
            lambda: os.symlink("x", "new"),
            lambda: os.rename("../other", "new"),
            lambda: os.stat("."),
            lambda: os.stat(".."),
            lambda: os.getcwd(),
            lambda: os.fsync(fd),
            lambda: os.fchmod(fd, 0o700),
            lambda: os.utime(fd),
            lambda: os.setxattr(fd, "user.a", b"b"),
            lambda: os.chdir(".."),
        ):
            done.append(failure(action))
        return done

    two.same(lambda root: Path("other").touch())
    two.same(stay)


def test_moving_directories_about(two: Beside) -> None:
    def move(root: Path) -> list[object]:
        os.makedirs("a/b/c")
        os.makedirs("x/y")
        fd = os.open("a/b/c", os.O_RDONLY)
        done: list[object] = [
            failure(os.rename, "a", "a/b/c/a"),
            failure(os.rename, "a/b", "x/y"),
            failure(os.rename, "a", "x"),
            failure(os.rmdir, "x"),
            failure(os.rmdir, "x/y/b/."),
            failure(os.unlink, "x"),
            failure(os.rename, "x/y/b", "."),
        ]
        for where in ("a", "x", "x/y", "x/y/c", "."):
            with contextlib.suppress(FileNotFoundError):
                done.append((where, os.stat(where).st_nlink))
        os.close(os.open("late", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        done.append(os.stat("..", dir_fd=fd).st_ino == os.stat("x/y").st_ino)
        renameat2(-100, b"x", -100, b"a", 2)
        done += [os.stat("a").st_nlink, os.stat("x").st_nlink, sorted(os.listdir("a/y"))]
        return done

    two.same(move)


def test_every_byte_in_a_name(two: Beside) -> None:
    def make(root: Path) -> list[object]:
        done: list[object] = []
        for byte in range(256):
            name = b"byte" + bytes([byte])
            if byte not in (0, 0x2F):
                os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
                os.symlink(name, b"link" + name)
        for length in (254, 255, 256, 1023, 1025):
            for filler in (b"x", b"\xff", "é".encode()):
                name = (filler * length)[:length]
                done.append(failure(os.mkdir, name))
                done.append(failure(os.stat, name))
                done.append(failure(os.symlink, name, b"to" + filler + b"%d" % length))
        for target in (b"t" * 4_000, b"t" * 4_094, b"t" * 4_095, b"t" * 4_096, b""):
            done.append(failure(os.symlink, target, b"target%d" % len(target)))
            with contextlib.suppress(OSError):
                done.append(len(os.readlink(b"target%d" % len(target))))
        return [*done, sorted(os.listdir(b"."))]

    two.same(make)


def test_walks_below_the_longest_path(two: Beside, shared: Pair) -> None:
    """Far below PATH_MAX by relative steps: everything works there, renames included."""

    def descend(root: Path) -> list[object]:
        for _ in range(20):
            os.mkdir("d" * 240)
            os.chdir("d" * 240)
        Path("file").write_text("deep")
        os.mkdir("dir")
        os.rename("file", "dir/moved")
        os.link("dir/moved", "linked")
        os.chmod("linked", 0o600)
        os.setxattr("linked", "user.a", b"b")
        os.truncate("linked", 2)
        os.symlink("linked", "link")
        fd = os.open("linked", os.O_RDWR)
        os.write(fd, b"DEEP and deeper")
        os.fsync(fd)
        os.unlink("dir/moved")
        for _ in range(20):
            os.chdir("..")
        os.rename("d" * 240, "short")
        os.write(fd, b" after the move")
        return [os.pread(fd, 40, 0), os.fstat(fd).st_nlink]

    def look(root: Path) -> list[object]:
        os.chdir("short")
        for _ in range(19):
            os.chdir("d" * 240)
        st = os.stat("linked")
        facts = (st.st_mode, st.st_nlink, os.listxattr("linked"), os.readlink("link"))
        return [sorted(os.listdir(".")), os.listdir("dir"), Path("link").read_text(), facts]

    two.same(descend)
    found = two.same(look)
    assert found[2] == "DEEP and deeper after the move"
    assert in_child(look, shared.b.backing / two.mounted.name) == found
    for root in (two.plain, two.mounted):  # too deep for the comparison of the trees
        subprocess.run(["rm", "-r", root / "short"], check=True)


def fill(directory: Path) -> set[str]:
    """Many names, below the mount: two inodes, as fast as it goes."""
    names = [f"entry-{number}" for number in range(MANY)]
    fd = os.open(directory, os.O_RDONLY)
    for number, name in enumerate(names):
        if number % (MANY // 2):
            half = names[number // (MANY // 2) * (MANY // 2)]
            os.link(half, name, src_dir_fd=fd, dst_dir_fd=fd)
        else:
            os.close(os.open(name, os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    return set(names)


def test_a_hundred_thousand_entries(two: Beside, shared: Pair) -> None:
    """Listed in bounded time, none missing, none twice, while others come and go; and nobody
    who works elsewhere waits for it."""
    huge = two.mounted / "huge"
    huge.mkdir()
    below = shared.a.backing / two.mounted.name / "huge"
    lasting = fill(below)
    stop = threading.Event()
    waited: list[float] = []

    def churn() -> None:
        for number in itertools.count():
            began = time.monotonic()
            (huge / f"passing-{number}").touch()
            (two.mounted / "elsewhere").write_text("x")
            if number:
                (huge / f"passing-{number - 1}").unlink()
            waited.append(time.monotonic() - began)
            if stop.is_set():
                (huge / f"passing-{number}").unlink()
                return

    worker = threading.Thread(target=churn)
    worker.start()
    try:
        for _ in range(2):
            began = time.monotonic()
            reader = Reader(huge)
            found = reader.rest()
            reader.close()
            assert time.monotonic() - began < MOST_SECONDS
            assert len(found) == len(set(found))
            assert lasting <= set(found)
    finally:
        stop.set()
        worker.join()
    assert max(waited) < MOST_SECONDS
    (two.mounted / "elsewhere").unlink()
    fd = os.open(below, os.O_RDONLY)
    for name in lasting:
        os.unlink(name, dir_fd=fd)
    os.close(fd)
    huge.rmdir()
