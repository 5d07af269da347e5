# SPDX-License-Identifier: Apache-2.0
"""Random operations: the mount does what a plain directory does, and the standby has it."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haoperator.replica._hotpath import fallocate, renameat2
from tests.replica.pair import Pair
from tests.replica.test_posix import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE
from tests.replica.trees import assert_equal_trees, differences, tree_of

NAMES = ["a", "b", "c", "d/a", "d/b", "d/e/a", "d/e", "d", "f"]
AT = os.open("/", os.O_PATH)
_numbers = itertools.count()

names = st.sampled_from(NAMES)
offsets = st.integers(0, 150_000)
modes = st.sampled_from([0o600, 0o644, 0o755, 0o4755, 0o2770])
operations = st.one_of(
    st.tuples(st.just("write"), names, offsets, st.integers(0, 70_000), st.integers(0, 255)),
    st.tuples(st.just("append"), names, st.binary(max_size=20)),
    st.tuples(st.just("create"), names, modes),
    st.tuples(st.just("truncate"), names, offsets),
    st.tuples(st.just("fallocate"), names, st.sampled_from([0, 1, 3, 16, 17]), offsets, offsets),
    st.tuples(st.just("mkdir"), names, modes),
    st.tuples(st.just("unlink"), names),
    st.tuples(st.just("rmdir"), names),
    st.tuples(st.just("rename"), names, names, st.sampled_from([0, 0, 0, 1, 2])),
    st.tuples(st.just("link"), names, names),
    st.tuples(st.just("symlink"), names, names),
    st.tuples(st.just("chmod"), names, modes),
    st.tuples(st.just("chown"), names, st.integers(0, 3), st.integers(0, 3)),
    st.tuples(st.just("utime"), names, st.integers(-(10**18), 4 * 10**18)),
    st.tuples(st.just("setxattr"), names, st.sampled_from(["user.a", "user.b"]), st.binary()),
    st.tuples(st.just("removexattr"), names, st.sampled_from(["user.a", "user.b"])),
    st.tuples(st.just("open"), names),
    st.tuples(st.just("write_open"), st.integers(0, 3), offsets, st.binary(max_size=100)),
    st.tuples(st.just("close_open"), st.integers(0, 3)),
)


class Tree:
    """Carries out operations below a directory; keeps some files open."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.open: list[int] = []

    def close(self) -> None:
        for fd in self.open:
            os.close(fd)

    def run(self, operation: tuple[object, ...]) -> str:
        """The name of the error, or `""`."""
        name, *arguments = operation
        try:
            getattr(self, f"do_{name}")(*arguments)
        except OSError as err:
            return os.strerror(err.errno or 0)
        return ""

    def at(self, name: str) -> str:
        return os.fspath(self.root / name)

    def do_write(self, name: str, offset: int, length: int, byte: int) -> None:
        fd = os.open(self.at(name), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        with contextlib.closing(os.fdopen(fd, "wb", buffering=0)):
            os.pwrite(fd, bytes([byte]) * length, offset)

    def do_append(self, name: str, data: bytes) -> None:
        fd = os.open(self.at(name), os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
        with contextlib.closing(os.fdopen(fd, "ab", buffering=0)):
            os.write(fd, data)

    def do_create(self, name: str, mode: int) -> None:
        os.close(os.open(self.at(name), os.O_RDWR | os.O_CREAT | os.O_EXCL, mode))

    def do_truncate(self, name: str, size: int) -> None:
        fd = os.open(self.at(name), os.O_WRONLY | os.O_NOFOLLOW)
        with contextlib.closing(os.fdopen(fd, "wb", buffering=0)):
            os.ftruncate(fd, size)

    def do_fallocate(self, name: str, mode: int, offset: int, length: int) -> None:
        fd = os.open(self.at(name), os.O_WRONLY | os.O_NOFOLLOW)
        with contextlib.closing(os.fdopen(fd, "wb", buffering=0)):
            fallocate(fd, mode, offset, length)

    def do_mkdir(self, name: str, mode: int) -> None:
        os.mkdir(self.at(name), mode)

    def do_unlink(self, name: str) -> None:
        os.unlink(self.at(name))

    def do_rmdir(self, name: str) -> None:
        os.rmdir(self.at(name))

    def do_rename(self, old: str, new: str, flags: int) -> None:
        renameat2(AT, os.fsencode(self.at(old)), AT, os.fsencode(self.at(new)), flags)

    def do_link(self, old: str, new: str) -> None:
        os.link(self.at(old), self.at(new), follow_symlinks=False)

    def do_symlink(self, target: str, name: str) -> None:
        os.symlink(target, self.at(name))

    def do_chmod(self, name: str, mode: int) -> None:
        if not os.path.islink(self.at(name)):
            os.chmod(self.at(name), mode)

    def do_chown(self, name: str, uid: int, gid: int) -> None:
        os.chown(self.at(name), uid, gid, follow_symlinks=False)

    def do_utime(self, name: str, mtime: int) -> None:
        os.utime(self.at(name), ns=(0, mtime), follow_symlinks=False)

    def do_setxattr(self, name: str, key: str, value: bytes) -> None:
        os.setxattr(self.at(name), key, value, follow_symlinks=False)

    def do_removexattr(self, name: str, key: str) -> None:
        os.removexattr(self.at(name), key, follow_symlinks=False)

    def do_open(self, name: str) -> None:
        fd = os.open(self.at(name), os.O_RDWR | os.O_NOFOLLOW)
        self.open.append(fd)
        if len(self.open) > 4:
            os.close(self.open.pop(0))

    def do_write_open(self, which: int, offset: int, data: bytes) -> None:
        if which < len(self.open):
            os.pwrite(self.open[which], data, offset)

    def do_close_open(self, which: int) -> None:
        if which < len(self.open):
            os.close(self.open.pop(which))


assert PUNCH_HOLE | KEEP_SIZE == 3
assert ZERO_RANGE == 16


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("plain")


@given(st.lists(operations, min_size=5, max_size=60))
@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_random_operations(shared: Pair, plain: Path, steps: list[tuple[object, ...]]) -> None:
    name = f"run-{next(_numbers)}"
    mounted, model = Tree(shared.a.path / name), Tree(plain / name)
    for tree in (mounted, model):
        tree.root.mkdir()
        (tree.root / "d").mkdir()
    try:
        for step in steps:
            assert mounted.run(step) == model.run(step), step
        found = differences(tree_of(mounted.root, times=False), tree_of(model.root, times=False))
        assert not found, "\n".join(found)
        assert_equal_trees(shared.a.backing / name, shared.b.backing / name)
    finally:
        mounted.close()
        model.close()
    assert shared.a.stream == "synced", shared.b.log_text()
