# SPDX-License-Identifier: Apache-2.0
"""Times, extended attributes, capabilities, sizes and what the file system says of itself."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from haoperator.replica.frames import LATEST
from tests.replica.beside import ALICE, BOB, TEAM, Beside, beside, failure
from tests.replica.pair import Pair
from tests.replica.test_posix import acl
from tests.replica.trees import assert_equal_trees

NOW, OMIT = (1 << 30) - 1, (1 << 30) - 2
"""UTIME_NOW and UTIME_OMIT."""
CAPABILITY = struct.pack("<IIIII", 0x0200_0001, 1 << 13, 0, 0, 0)
"""cap_net_raw+ep, as `setcap` writes it."""
LIBC = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def two(shared: Pair, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Beside]:
    with beside(shared, tmp_path, request.node.name) as both:
        yield both


def set_times(name: str, atime: tuple[int, int], mtime: tuple[int, int], flags: int = 0) -> str:
    """utimensat(2) with (seconds, nanoseconds). Returns the name of the error."""
    times = (ctypes.c_long * 4)(*atime, *mtime)

    def call() -> None:
        if LIBC.utimensat(-100, name.encode(), times, flags):
            raise OSError(ctypes.get_errno(), "utimensat")

    return failure(call)


def times(name: str) -> tuple[int, int]:
    st = os.stat(name)
    return st.st_atime_ns, st.st_mtime_ns


@pytest.mark.parametrize("seconds", [0, 1, -1, -2_147_483_648, 2_147_483_648, 2_305_000_000])
def test_times_to_the_nanosecond(two: Beside, seconds: int) -> None:
    """From 1901 on, which is what ext4 can, to 2262, which is what a frame can."""

    def change(root: Path) -> list[object]:
        Path("file").touch()
        Path("dir").mkdir()
        done: list[object] = []
        for name in ("file", "dir"):
            done.append(set_times(name, (seconds, 999_999_999), (seconds, 1)))
            done.append(times(name))
            done.append(set_times(name, (0, OMIT), (seconds * 4, 123_456_789)))
            done.append(times(name))
            done.append(set_times(name, (seconds, 0), (0, OMIT)))
            done.append(times(name))
        return done

    two.same(change)


def test_times_beyond_what_a_frame_can_say_are_bounded(two: Beside) -> None:
    (two.mounted / "file").touch()
    os.utime(two.mounted / "file", (15_032_385_535, 15_032_385_535))
    assert (two.mounted / "file").stat().st_mtime_ns == LATEST
    (two.mounted / "file").unlink()


def test_the_present_is_the_file_systems(two: Beside) -> None:
    """A write after UTIME_NOW is never earlier than it, although the kernel's clock is coarse."""

    def change(root: Path) -> list[bool]:
        done = []
        Path("file").write_text("x")
        for number in range(50):
            before = time.time_ns() - 20_000_000
            set_times("file", (0, NOW), (0, NOW))
            touched = times("file")
            fd = os.open("file", os.O_WRONLY)
            os.write(fd, b"%d" % number)
            os.close(fd)
            done.append(before <= touched[0] == touched[1] <= times("file")[1])
            set_times("file", (0, NOW), (5, 5))
            set_times("file", (0, OMIT), (0, NOW))
            done.append(before <= times("file")[0] <= times("file")[1])
        return done

    assert all(two.same(change))


def test_who_may_set_which_times(two: Beside) -> None:
    def make(root: Path) -> None:
        Path("file").touch()
        os.chown("file", ALICE.uid, TEAM)
        os.chmod("file", 0o664)

    def change(root: Path) -> list[str]:
        return [
            set_times("file", (0, NOW), (0, NOW)),
            set_times("file", (0, OMIT), (0, OMIT)),
            set_times("file", (0, NOW), (0, OMIT)),
            set_times("file", (1, 2), (3, 4)),
            set_times("file", (1, 1_000_000_000), (3, 4)),
        ]

    two.same(make)
    two.same(change, ALICE)
    assert two.same(change, BOB)[:4] == ["", "", "EPERM", "EPERM"]
    two.same(lambda root: os.chmod("file", 0o600))
    two.same(change, BOB)


def test_changes_move_the_times_that_they_should(two: Beside) -> None:
    """mtime and ctime of a file and of its directory, for every kind of change."""

    def act(root: Path) -> None:
        os.mkdir("dir")
        Path("dir/file").write_text("x" * 10)

    changes: dict[str, Callable[[], object]] = {
        "write": lambda: Path("dir/file").write_text("y"),
        "chmod": lambda: os.chmod("dir/file", 0o600),
        "chown": lambda: os.chown("dir/file", 3, 4),
        "setxattr": lambda: os.setxattr("dir/file", "user.a", b"b"),
        "truncate": lambda: os.truncate("dir/file", 3),
        "same size": lambda: os.truncate("dir/file", 3),
        "link": lambda: os.link("dir/file", "dir/link"),
        "rename": lambda: os.rename("dir/link", "dir/other"),
        "unlink": lambda: os.unlink("dir/other"),
        "mkdir": lambda: os.mkdir("dir/sub"),
        "rmdir": lambda: os.rmdir("dir/sub"),
        "symlink": lambda: os.symlink("x", "dir/symlink"),
        "read": lambda: Path("dir/file").read_text(),
        "allocate": lambda: allocate("dir/file"),
    }

    def allocate(name: str) -> None:
        fd = os.open(name, os.O_WRONLY)
        os.posix_fallocate(fd, 0, 9000)
        os.close(fd)

    def change(root: Path) -> list[object]:
        act(root)
        done: list[object] = []
        for name, function in changes.items():
            before = [os.stat(path) for path in ("dir", "dir/file")]
            time.sleep(0.011)  # the clock of the kernel ticks 100 times a second or more
            function()
            after = [os.stat(path) for path in ("dir", "dir/file")]
            moved = [
                (old.st_mtime_ns != new.st_mtime_ns, old.st_ctime_ns != new.st_ctime_ns)
                for old, new in zip(before, after, strict=True)
            ]
            done.append((name, moved, after[1].st_nlink, after[0].st_nlink))
        return done

    two.same(change)


def test_every_name_space_of_attributes(two: Beside) -> None:
    """`user`, `trusted`, `security`, `system`: what root may, what others may and see."""
    names = ["user.a", "trusted.a", "security.a", "system.a", "none.a", "user.", "user", "a"]
    values = [b"", b"x", b"\0\1\2" * 50, b"v" * 3000, b"v" * 70_000]

    def change(root: Path) -> list[object]:
        done: list[object] = []
        for path in ("file", "dir", "link", "fifo"):
            for name in names:
                for value in values:
                    done.append(failure(os.setxattr, path, name, value, 0, follow_symlinks=False))
                done.append(failure(os.getxattr, path, name, follow_symlinks=False))
                with contextlib.suppress(OSError):
                    done.append(os.getxattr(path, name, follow_symlinks=False))
            done.append(sorted(os.listxattr(path, follow_symlinks=False)))
            done.append(failure(os.setxattr, path, "user.a", b"", os.XATTR_CREATE))
            done.append(failure(os.setxattr, path, "user.b", b"", os.XATTR_REPLACE))
            done.append(failure(os.setxattr, path, "user." + "n" * 250, b"long name"))
            done.append(failure(os.setxattr, path, "user." + "n" * 251, b"long name"))
        return done

    def make(root: Path) -> None:
        Path("file").touch()
        os.mkdir("dir")
        os.symlink("nowhere", "link")
        os.mkfifo("fifo")
        for path in ("file", "dir", "link", "fifo"):
            os.chown(path, ALICE.uid, -1, follow_symlinks=False)

    def read(root: Path) -> list[object]:
        return [
            sorted(os.listxattr("file")),
            failure(os.getxattr, "file", "trusted.a"),
            failure(os.getxattr, "file", "security.a"),
        ]

    two.same(make)
    two.same(change)
    assert two.same(read)[0] == sorted(["security.a", "trusted.a", "user.a", "user." + "n" * 250])
    found = two.same(read, ALICE)
    assert found[0] == sorted(["security.a", "user.a", "user." + "n" * 250])
    two.same(change, ALICE)
    two.same(lambda root: [failure(os.removexattr, "file", name) for name in names])


def test_buffers_that_are_too_small(two: Beside) -> None:
    def ask(root: Path) -> list[object]:
        Path("file").touch()
        os.setxattr("file", "user.a", b"0123456789")
        buffer = ctypes.create_string_buffer(100)
        done: list[object] = []
        for size in (0, 1, 9, 10, 100):
            ctypes.set_errno(0)
            found = LIBC.getxattr(b"file", b"user.a", buffer, size)
            done.append((found, ctypes.get_errno()))
            found = LIBC.listxattr(b"file", buffer, size)
            done.append((found, ctypes.get_errno(), buffer.raw[: max(found, 0)]))
        return done

    two.same(ask)


def test_file_capabilities_go_with_a_change(two: Beside) -> None:
    """By a write, a truncation, an allocation, another owner: even those of root."""

    def write(name: str) -> None:
        fd = os.open(name, os.O_WRONLY)
        os.write(fd, b"x")
        os.close(fd)

    def allocate(name: str) -> None:
        fd = os.open(name, os.O_WRONLY)
        os.posix_fallocate(fd, 0, 9000)
        os.close(fd)

    changes: dict[str, Callable[[str], object]] = {
        "write": write,
        "allocate": allocate,
        "truncate": lambda name: os.truncate(name, 1),
        "give": lambda name: os.chown(name, -1, TEAM),
        "mode": lambda name: os.chmod(name, 0o755),
        "time": lambda name: os.utime(name),
        "move": lambda name: os.rename(name, name + "-moved"),
    }

    def change(root: Path, user: str) -> list[object]:
        done: list[object] = []
        for name, function in changes.items():
            path = f"{name}-{user}"
            done.append(failure(function, path))
            done.append(failure(os.setxattr, path, "security.capability", CAPABILITY))
            done.append(sorted(os.listxattr(path)) if os.path.exists(path) else "moved")
        return done

    def make(root: Path) -> None:
        for name in changes:
            for user in ("root", "alice"):
                path = f"{name}-{user}"
                Path(path).write_text("program")
                os.chown(path, ALICE.uid, -1)
                os.setxattr(path, "security.capability", CAPABILITY)

    two.same(make)
    two.same(lambda root: change(root, "alice"), ALICE)
    two.same(
        lambda root: [sorted(os.listxattr(name)) for name in sorted(os.listdir("."))],
    )
    two.same(lambda root: change(root, "root"))


def test_lists_change_modes_and_modes_lists(two: Beside) -> None:
    nobody = 0xFFFF_FFFF

    def change(root: Path) -> list[object]:
        done: list[object] = []
        Path("file").touch()
        for mask in (0, 4, 7):
            granted = acl(
                (1, 6, nobody), (2, 7, BOB.uid), (4, 4, nobody), (16, mask, nobody), (32, 1, nobody)
            )
            os.setxattr("file", "system.posix_acl_access", granted)
            done.append(os.stat("file").st_mode)
            os.chmod("file", 0o750)
            done.append(os.getxattr("file", "system.posix_acl_access"))
        os.setxattr(
            "file", "system.posix_acl_access", acl((1, 6, nobody), (4, 4, nobody), (32, 0, nobody))
        )
        done.append((os.stat("file").st_mode, os.listxattr("file")))
        done.append(failure(os.removexattr, "file", "system.posix_acl_access"))
        done.append(failure(os.removexattr, "file", "system.posix_acl_default"))
        return done

    two.same(change)


def test_blocks_sizes_and_the_file_systems_own_figures(two: Beside) -> None:
    def look(root: Path) -> list[object]:
        Path("small").write_bytes(b"x")
        Path("large").write_bytes(b"x" * 300_000)
        fd = os.open("sparse", os.O_CREAT | os.O_WRONLY)
        os.pwrite(fd, b"x", 10_000_000)
        os.posix_fallocate(fd, 1_000_000, 100_000)
        os.close(fd)
        os.sync()
        found: list[object] = [
            (os.stat(name).st_size, os.stat(name).st_blocks, os.stat(name).st_blksize)
            for name in ("small", "large", "sparse", ".")
        ]
        st = os.statvfs(".")
        found.append((st.f_bsize, st.f_frsize, st.f_blocks, st.f_files, st.f_namemax))
        found.append(os.pathconf(".", "PC_NAME_MAX"))
        return found

    two.same(look)


def test_flags_of_inodes_and_shared_extents_are_refused(two: Beside) -> None:
    """chattr and lsattr get the error of a file system without such flags; a reflink that of
    ext4. Nothing has changed."""

    def refused(root: Path) -> tuple[str, str]:
        Path("one").write_text("x")
        Path("two").write_text("y")
        with open("one", "r+b") as one, open("two", "r+b") as two:
            return (
                failure(fcntl.ioctl, one, 0x4004_9409, two.fileno()),  # FICLONE
                Path("one").read_text(),
            )

    two.same(refused)
    with open(two.mounted / "one", "rb") as file:
        assert failure(fcntl.ioctl, file, 0x8008_6601, bytes(8)) == "ENOTTY"


def test_a_first_copy_has_all_attributes(pair: Pair) -> None:
    """Set-id bits and capabilities outlive the copying of contents; odd times do not end it."""
    root = pair.a.path
    for name in ("program", "late", "early", "sparse"):
        (root / name).write_bytes(os.urandom(200_000))
    (root / "dir").mkdir()
    os.mkfifo(root / "fifo")
    os.symlink("nowhere", root / "link")
    os.chown(root / "program", ALICE.uid, TEAM)
    os.chmod(root / "program", 0o6711)
    os.setxattr(root / "program", "security.capability", CAPABILITY)
    nobody = 0xFFFF_FFFF
    granted = acl((1, 6, nobody), (2, 7, BOB.uid), (4, 4, nobody), (16, 7, nobody), (32, 0, nobody))
    os.setxattr(root / "dir", "system.posix_acl_default", granted)
    os.setxattr(root / "early", "system.posix_acl_access", granted)
    for name in ("program", "dir", "fifo", "link"):
        os.setxattr(root / name, "trusted.a", name.encode(), follow_symlinks=False)
        os.chown(root / "link", 5, 6, follow_symlinks=False)
        os.utime(root / name, ns=(1, -1_999_999_999), follow_symlinks=False)
    os.truncate(root / "sparse", 50_000_000)
    os.utime(root / "early", (-2_000_000_000, -2_000_000_000))
    os.utime(root / "late", (15_032_385_535, 15_032_385_535))
    pair.replicate()
    late = os.stat(pair.b.backing / "late").st_mtime_ns
    assert late == LATEST
    os.utime(pair.a.path / "late", (0, 0))
    assert_equal_trees(pair.a.backing, pair.b.backing)
    assert os.stat(pair.b.backing / "sparse").st_blocks * 512 < 1_000_000
