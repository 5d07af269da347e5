# SPDX-License-Identifier: Apache-2.0
"""What processes do with each other over files: locks, leases, notices, pipes, programs."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.replica.beside import ALICE, BOB, CAROL, Beside, beside, failure
from tests.replica.pair import Pair

LIBC = ctypes.CDLL(None, use_errno=True)
OFD_SETLK, OFD_GETLK = 37, 36
READ_LOCK, WRITE_LOCK, UNLOCK = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK


def lock_anew(command: int, kind: int, start: int, length: int) -> str:
    return lock(os.open("file", os.O_RDWR), command, kind, start, length)


@pytest.fixture
def two(shared: Pair, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Beside]:
    with beside(shared, tmp_path, request.node.name) as both:
        yield both


def by_another(action: Callable[..., str], *arguments: object) -> str:
    """What a call returns in another process."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.write(writing, action(*arguments).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with open(reading) as pipe:
        return pipe.read()


def lock(fd: int, command: int, kind: int, start: int, length: int) -> str:
    """A record lock. The error's name, or for a question who holds what."""
    asked = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, length, 0)
    try:
        found = fcntl.fcntl(fd, command, asked)
    except OSError as err:
        return os.strerror(err.errno or 0)
    return str(struct.unpack("hhqqi4x", found)[:4]) if command in (fcntl.F_GETLK, OFD_GETLK) else ""


def test_record_locks_between_processes(two: Beside) -> None:
    def use(root: Path) -> list[str]:
        fd = os.open("file", os.O_RDWR | os.O_CREAT)
        again = os.open("file", os.O_RDWR)
        done = [
            lock(fd, fcntl.F_SETLK, WRITE_LOCK, 0, 10),
            lock(fd, fcntl.F_SETLK, READ_LOCK, 20, 10),
            lock(again, fcntl.F_SETLK, WRITE_LOCK, 5, 2),
        ]
        for command, get in ((fcntl.F_SETLK, fcntl.F_GETLK), (OFD_SETLK, OFD_GETLK)):
            for kind in (READ_LOCK, WRITE_LOCK):
                for start in (5, 15, 25):
                    done.append(by_another(lock_anew, command, kind, start, 3))
                    done.append(by_another(lock, fd, get, kind, start, 3))
        os.close(again)  # gives up all of this process, as POSIX has it
        done.append(by_another(lock, fd, fcntl.F_SETLK, WRITE_LOCK, 0, 0))
        return done

    two.same(use)


def test_whole_file_locks_between_processes(two: Beside) -> None:
    def flock(name: str, how: int) -> str:
        return failure(fcntl.flock, os.open(name, os.O_RDWR | os.O_CREAT), how)

    def use(root: Path) -> list[str]:
        fd = os.open("file", os.O_RDWR | os.O_CREAT)
        done = []
        for how in (fcntl.LOCK_SH, fcntl.LOCK_EX, fcntl.LOCK_UN):
            fcntl.flock(fd, how)
            for attempt in (fcntl.LOCK_SH, fcntl.LOCK_EX):
                done.append(by_another(flock, "file", attempt | fcntl.LOCK_NB))
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.rename("file", "moved")
        done.append(by_another(flock, "moved", fcntl.LOCK_EX | fcntl.LOCK_NB))
        done.append(by_another(flock, "file", fcntl.LOCK_EX | fcntl.LOCK_NB))
        return done

    two.same(use)


def test_somebody_who_waits_for_a_lock_gets_it(two: Beside) -> None:
    def use(root: Path) -> list[object]:
        fd = os.open("file", os.O_RDWR | os.O_CREAT)
        fcntl.lockf(fd, fcntl.LOCK_EX)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            other = os.open("file", os.O_RDWR)
            os.write(writing, b"waits")
            fcntl.lockf(other, fcntl.LOCK_EX)
            os.write(other, b"child was here")
            os._exit(7)
        os.read(reading, 5)
        os.write(fd, b"parent was here first")
        fcntl.lockf(fd, fcntl.LOCK_UN)
        status = os.waitpid(child, 0)[1]
        return [os.waitstatus_to_exitcode(status), Path("file").read_text()]

    two.same(use)


def test_leases(two: Beside) -> None:
    def use(root: Path) -> list[object]:
        Path("file").write_text("x")
        fd = os.open("file", os.O_RDONLY)
        done: list[object] = []
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        for kind in (fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK):
            done.append(failure(fcntl.fcntl, fd, fcntl.F_SETLEASE, kind))
            done.append(fcntl.fcntl(fd, fcntl.F_GETLEASE))
            nonblocking = os.O_WRONLY | os.O_NONBLOCK
            done.append(by_another(failure, os.open, "file", nonblocking))
        return done

    two.same(use)


def test_notices_of_changes(two: Beside) -> None:
    """inotify on the primary sees what happens, as it does below."""

    def watch(root: Path) -> list[tuple[int, bytes]]:
        os.mkdir("dir")
        fd = LIBC.inotify_init1(os.O_NONBLOCK)
        assert LIBC.inotify_add_watch(fd, b"dir", 0xFFF) > 0
        with open("dir/file", "w") as file:
            file.write("x")
        os.chmod("dir/file", 0o600)
        os.rename("dir/file", "dir/other")
        os.link("dir/other", "dir/linked")
        os.mkdir("dir/sub")
        os.truncate("dir/other", 0)
        Path("dir/other").read_text()
        os.unlink("dir/other")
        os.rmdir("dir/sub")
        found = []
        data = os.read(fd, 65_536)
        while data:
            _, mask, _, length = struct.unpack_from("iIII", data)
            found.append((mask, data[16 : 16 + length].rstrip(b"\0")))
            data = data[16 + length :]
        return found

    two.same(watch)


def test_pipes_with_a_name(two: Beside) -> None:
    def use(root: Path) -> list[object]:
        os.mkfifo("fifo", 0o600)
        done: list[object] = [failure(os.open, "fifo", os.O_WRONLY | os.O_NONBLOCK)]
        child = os.fork()
        if child == 0:
            fd = os.open("fifo", os.O_WRONLY)
            os.write(fd, b"through the pipe")
            os._exit(0)
        with open("fifo", "rb") as file:
            done.append(file.read())
        os.waitpid(child, 0)
        both = os.open("fifo", os.O_RDWR)
        done.append(os.write(both, b"x" * 1000))
        os.rename("fifo", "moved")
        done.append(len(os.read(os.open("moved", os.O_RDONLY), 2000)))
        done.append(failure(os.lseek, both, 0, os.SEEK_SET))
        return done

    two.same(use)


def test_sockets_with_a_name(two: Beside) -> None:
    def use(root: Path) -> list[object]:
        done: list[object] = []
        server = socket.socket(socket.AF_UNIX)
        server.bind("sock")
        server.listen()
        done.append(stat.filemode(os.lstat("sock").st_mode))
        os.chmod("sock", 0o666)
        child = os.fork()
        if child == 0:
            os.setresuid(CAROL.uid, CAROL.uid, CAROL.uid)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect("sock")
                client.sendall(b"hello")
            os._exit(0)
        accepted, _ = server.accept()
        done.append(accepted.recv(10))
        done.append(os.waitpid(child, 0)[1])
        os.chmod("sock", 0o600)

        def refused() -> str:
            os.setresuid(CAROL.uid, CAROL.uid, CAROL.uid)
            return failure(lambda: socket.socket(socket.AF_UNIX).connect("sock"))

        done.append(by_another(refused))
        done.append(failure(lambda: socket.socket(socket.AF_UNIX).bind("sock")))
        os.rename("sock", "moved")
        client = socket.socket(socket.AF_UNIX)
        done.append(failure(client.connect, "moved"))
        server.close()
        done.append(failure(lambda: socket.socket(socket.AF_UNIX).connect("moved")))
        done.append(failure(os.open, "moved", os.O_RDONLY))
        return done

    two.same(use)


def test_devices(two: Beside) -> None:
    def use(root: Path) -> list[object]:
        os.mknod("null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod("zero", stat.S_IFCHR | 0o600, os.makedev(1, 5))
        os.chmod("null", 0o666)
        os.mknod("big", stat.S_IFBLK | 0o600, os.makedev(4_000, 1_000_000))
        with open("null", "wb", buffering=0) as null:
            done: list[object] = [null.write(b"gone")]
        with open("zero", "rb", buffering=0) as zero:
            done.append(zero.read(5))
        done.append(failure(os.open, "big", os.O_RDONLY))
        done += [
            (os.major(os.stat(n).st_rdev), os.minor(os.stat(n).st_rdev)) for n in ("big", "null")
        ]
        done.append(failure(os.mknod, "none", stat.S_IFDIR | 0o666))
        return done

    def by_a_user(root: Path) -> list[object]:
        with open("null", "wb", buffering=0) as null:
            done: list[object] = [null.write(b"gone")]
        done.append(failure(os.open, "zero", os.O_RDONLY))
        for kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK):
            done.append(failure(os.mknod, f"user-{kind}", kind | 0o640, os.makedev(1, 3)))
        return done

    two.same(use)
    two.same(by_a_user, ALICE)


def test_programs(two: Beside) -> None:
    """Executed, busy while they run, with the owner's rights where they are set."""

    def make(root: Path) -> None:
        shutil.copy("/usr/bin/id", "id")
        shutil.copy("/usr/bin/sleep", "sleep")
        shutil.copy("/usr/bin/id", "set-id")
        os.chown("set-id", BOB.uid, BOB.gid)
        os.chmod("set-id", 0o6755)
        Path("script").write_text("#!/bin/sh\necho from the script $1\n")
        os.chmod("script", 0o755)
        Path("data").write_text("no program")
        os.chmod("data", 0o755)

    def run(root: Path) -> list[object]:
        done: list[object] = []
        for command in (["./id", "-u"], ["./set-id", "-u"], ["./script", "it"]):
            done.append(subprocess.run(command, capture_output=True, check=False).stdout)
        done.append(failure(os.execv, "./data", ["data"]))
        done.append(failure(os.execv, ".", ["."]))
        child = subprocess.Popen(["./sleep", "60"])
        os.stat(f"/proc/{child.pid}/exe")
        done.append(failure(os.open, "sleep", os.O_WRONLY))
        done.append(failure(os.truncate, "sleep", 5))
        child.kill()
        child.wait()
        writing = failure(os.open, "sleep", os.O_WRONLY)
        done.append(writing)
        return done

    two.same(make)
    two.same(run)
    found = two.same(run, ALICE)
    assert found[1] == b"%d\n" % BOB.uid
