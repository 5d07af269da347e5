# SPDX-License-Identifier: Apache-2.0
"""Who may do what, and whose is what comes of it: as on the file system below."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.replica.beside import ALICE, BOB, CAROL, STAFF, TEAM, Beside, beside, failure, try_open
from tests.replica.pair import Pair
from tests.replica.test_posix import acl

USERS = (ALICE, BOB, CAROL)
SET_ID_MODES = (0o4755, 0o2755, 0o6777, 0o4600, 0o2711, 0o6710)
"""Where the group may not execute, set-gid means nothing, and the kernel does not tell FUSE
whether the caller is in the group, on which its going depends."""


@pytest.fixture
def two(shared: Pair, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Beside]:
    with beside(shared, tmp_path, request.node.name) as both:
        yield both


def facts(path: Path | str) -> tuple[str, int, int, int]:
    """Mode, owner, group and names of what is at `path`."""
    st = os.lstat(path)
    return stat.filemode(st.st_mode), st.st_uid, st.st_gid, st.st_nlink


def attempts(root: Path) -> list[str]:
    """Everything that somebody may try with a file and a directory that are another's."""
    tried = [
        failure(try_open, name, flags)
        for name in ("file", "dir")
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC)
    ]
    for name in ("file", "dir"):
        tried += [str(os.access(name, wanted)) for wanted in (os.F_OK, os.R_OK, os.W_OK, os.X_OK)]
        tried += [
            failure(os.chmod, name, 0o700),
            failure(os.chown, name, -1, TEAM),
            failure(os.utime, name),
            failure(os.utime, name, (1, 2)),
            failure(os.setxattr, name, "user.x", b"1"),
            failure(os.removexattr, name, "user.x"),
            failure(os.getxattr, name, "user.none"),
            failure(os.setxattr, name, "trusted.x", b"1"),
            failure(os.setxattr, name, "security.x", b"1"),
        ]
    tried += [
        failure(os.listdir, "dir"),
        failure(os.stat, "dir/below"),
        failure(os.mkdir, "dir/new"),
        failure(os.rename, "dir/below", "dir/moved"),
        failure(os.unlink, "dir/moved"),
        failure(os.link, "file", "dir/linked"),
        failure(os.mknod, "dir/device", stat.S_IFCHR | 0o666, os.makedev(1, 3)),
        failure(os.mkfifo, "dir/fifo"),
        failure(os.symlink, "x", "dir/symlink"),
        failure(os.truncate, "file", 3),
    ]
    return tried


@pytest.mark.parametrize("mode", [0o000, 0o640, 0o062, 0o770, 0o007, 0o555, 0o1777])
def test_modes_decide_for_owner_group_and_others(two: Beside, mode: int) -> None:
    def make(root: Path) -> None:
        Path("file").write_text("content")
        Path("dir").mkdir()
        Path("dir/below").touch()
        for name in ("file", "dir"):
            os.chown(name, ALICE.uid, TEAM)
            os.chmod(name, mode)

    two.same(make)
    for user in (BOB, CAROL, ALICE):
        two.same(attempts, user)


@pytest.mark.parametrize("mode", SET_ID_MODES)
def test_set_id_bits_go_when_somebody_else_touches_the_file(two: Beside, mode: int) -> None:
    """By a write, a truncation, an allocation, a change of owner: each by root and by a user."""

    def write(name: str) -> None:
        fd = os.open(name, os.O_WRONLY)
        os.write(fd, b"new")
        os.close(fd)

    def allocate(name: str) -> None:
        fd = os.open(name, os.O_WRONLY)
        os.posix_fallocate(fd, 0, 10_000)
        os.close(fd)

    changes: dict[str, Callable[[str], object]] = {
        "write": write,
        "truncate": lambda name: os.truncate(name, 2),
        "open": lambda name: os.close(os.open(name, os.O_WRONLY | os.O_TRUNC)),
        "allocate": allocate,
        "give": lambda name: os.chown(name, -1, TEAM),
        "refuse": lambda name: os.chown(name, CAROL.uid, -1),
    }
    who = {"root": None, "alice": ALICE, "carol": CAROL}

    def make(root: Path) -> None:
        for change in changes:
            for user in who:
                path = Path(f"{change}-{user}")
                path.write_text("content")
                os.chown(path, ALICE.uid, STAFF)
                os.chmod(path, mode | 0o006)

    def change(root: Path, user: str) -> list[object]:
        done: list[object] = []
        for name, function in changes.items():
            path = f"{name}-{user}"
            os.stat(path)  # from here on the kernel has it cached
            done.append((name, failure(function, path), *facts(path)))
        return done

    two.same(make)
    two.same(lambda root: change(root, "root"))
    two.same(lambda root: change(root, "alice"), ALICE)
    two.same(lambda root: change(root, "carol"), CAROL)


def test_a_user_keeps_set_gid_only_for_a_group_of_its_own(two: Beside) -> None:
    def change(root: Path) -> list[object]:
        for name, group in (("team", TEAM), ("own", -1)):
            Path(name).touch()
            os.chown(name, -1, group)
        done: list[object] = [failure(os.chown, "own", -1, 4)]
        for name in ("team", "own"):
            os.chmod(name, 0o6775)
            done.append(facts(name))
        return done

    def not_a_member(root: Path) -> list[object]:
        os.chmod("strange", 0o2775)
        return [facts("strange")]

    two.same(change, ALICE)

    def make(root: Path) -> None:
        Path("strange").touch()
        os.chown("strange", ALICE.uid, 4)

    two.same(make)
    assert two.same(not_a_member, ALICE) == [("-rwxrwxr-x", ALICE.uid, 4, 1)]


def test_what_is_made_in_a_set_gid_directory_has_its_group(two: Beside) -> None:
    def make(root: Path) -> None:
        for name, group in (("team", TEAM), ("strange", 4)):
            os.mkdir(name)
            os.chown(name, -1, group)
            os.chmod(name, 0o2777)

    def fill(root: Path) -> list[object]:
        done: list[object] = []
        for where in ("team", "strange"):
            os.close(os.open(f"{where}/file", os.O_CREAT | os.O_WRONLY, 0o666))
            os.close(os.open(f"{where}/exec", os.O_CREAT | os.O_WRONLY, 0o2775))
            os.close(os.open(f"{where}/lock", os.O_CREAT | os.O_WRONLY, 0o2665))
            os.mkdir(f"{where}/dir", 0o755)
            os.mkfifo(f"{where}/fifo", 0o2775)
            os.symlink("x", f"{where}/link")
            fd = os.open(where, os.O_TMPFILE | os.O_RDWR, 0o2755)
            done.append((os.fstat(fd).st_mode, os.fstat(fd).st_gid))
            os.link(f"/proc/self/fd/{fd}", f"{where}/tmp", src_dir_fd=fd, follow_symlinks=True)
            os.close(fd)
            done += [(name, facts(f"{where}/{name}")) for name in sorted(os.listdir(where))]
            Path(f"{where}/dir/deep").mkdir()
            done.append(facts(f"{where}/dir/deep"))
        return done

    two.same(make)
    two.same(fill, ALICE)


def test_a_sticky_directory_protects_what_is_in_it(two: Beside) -> None:
    def make(root: Path) -> None:
        os.chmod(".", 0o1777)

    def own(root: Path) -> None:
        Path("file").touch(0o666)
        Path("dir").mkdir(0o777)
        os.chmod("dir", 0o777)

    def attack(root: Path) -> list[str]:
        Path("mine").touch()
        return [
            failure(os.unlink, "file"),
            failure(os.rename, "file", "stolen"),
            failure(os.rename, "mine", "file"),
            failure(os.rmdir, "dir"),
            failure(os.rename, "dir", "stolen"),
            failure(os.link, "file", "linked"),
            failure(os.rename, "mine", "dir/mine"),
            failure(os.rename, "dir/mine", "mine"),
        ]

    two.same(make)
    two.same(own, ALICE)
    assert two.same(attack, BOB)[:3] == ["EPERM"] * 3
    two.same(lambda root: os.rename("file", "moved by its owner"), ALICE)


def test_supplementary_groups_open_what_is_a_groups(two: Beside) -> None:
    def make(root: Path) -> None:
        for name, group in (("team", TEAM), ("staff", STAFF)):
            os.mkdir(name)
            os.chown(name, -1, group)
            os.chmod(name, 0o770)
            Path(name, "file").write_text(name)

    def visit(root: Path) -> list[object]:
        return [
            failure(os.listdir, "team"),
            failure(lambda: Path("team", "by", str(os.getuid())).parent.mkdir()),
            failure(os.listdir, "staff"),
            failure(lambda: Path("staff", "file").write_text("changed")),
            failure(os.chown, "staff", -1, TEAM),
        ]

    two.same(make)
    found = [two.same(visit, user) for user in USERS]
    assert found[0][2] == ""
    assert found[1][2] == "EACCES"
    assert found[2][0] == "EACCES"


def test_access_control_lists_decide(two: Beside) -> None:
    nobody = 0xFFFF_FFFF
    entries = ((1, 7, nobody), (2, 5, BOB.uid), (4, 0, nobody), (8, 6, STAFF))
    granted = acl(*entries, (16, 7, nobody), (32, 0, nobody))
    masked = acl(*entries, (16, 4, nobody), (32, 0, nobody))

    def make(root: Path) -> list[object]:
        Path("file").write_text("content")
        Path("dir").mkdir()
        Path("dir/below").touch()
        os.setxattr("file", "system.posix_acl_access", granted)
        os.setxattr("dir", "system.posix_acl_access", masked)
        os.setxattr("dir", "system.posix_acl_default", granted)
        return [facts(name) for name in ("file", "dir")]

    two.same(make)
    for user in USERS:
        two.same(attempts, user)

    def change(root: Path) -> list[object]:
        os.chmod("file", 0o601)
        os.setxattr("dir", "system.posix_acl_access", granted)
        done: list[object] = [
            failure(os.setxattr, "file", "system.posix_acl_default", granted),
            failure(os.setxattr, "file", "system.posix_acl_access", b"rubbish"),
            failure(os.setxattr, "file", "system.posix_acl_access", acl((1, 7, nobody))),
            failure(os.removexattr, "dir/below", "system.posix_acl_access"),
        ]
        for name in ("file", "dir"):
            done.append((facts(name), os.getxattr(name, "system.posix_acl_access")))
        return done

    two.same(change)
    for user in USERS:
        two.same(attempts, user)


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o777])
def test_default_lists_come_before_the_umask(two: Beside, mask: int) -> None:
    nobody = 0xFFFF_FFFF
    base = ((1, 7, nobody), (4, 7, nobody), (32, 5, nobody))
    full = acl(base[0], (2, 6, BOB.uid), base[1], (16, 7, nobody), base[2])

    def make(root: Path) -> None:
        for name, default in (("full", full), ("base", acl(*base)), ("none", b"")):
            os.mkdir(name)
            os.chmod(name, 0o2777 if name == "full" else 0o777)
            if default:
                os.setxattr(name, "system.posix_acl_default", default)

    def fill(root: Path) -> list[object]:
        os.umask(mask)
        done: list[object] = []
        for where in ("full", "base", "none"):
            for mode in (0o777, 0o666, 0o640, 0o000):
                name = f"{where}/{os.getuid()}-{mode:o}"
                os.close(os.open(f"{name}-file", os.O_CREAT | os.O_WRONLY, mode))
                os.mkdir(f"{name}-dir", mode)
                os.mkfifo(f"{name}-fifo", mode)
                fd = os.open(where, os.O_TMPFILE | os.O_RDWR, mode)
                done.append(os.fstat(fd).st_mode)
                os.close(fd)
                done += [facts(f"{name}-{kind}") for kind in ("file", "dir", "fifo")]
        return done

    two.same(make)
    two.same(fill)
    two.same(fill, ALICE)
