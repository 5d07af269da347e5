# SPDX-License-Identifier: Apache-2.0
"""Small real file systems in files: to be filled, to be limited, to fail."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.replica.pair import Pair
from tests.replica.spawner import Spawner

MIB = 1024 * 1024
EXT4 = ("mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-m", "0")
UNJOURNALED = (*EXT4, "-O", "^has_journal")
"""Where only data meet the errors of the disk, the file system stays as it is."""


def _run(*command: str | Path) -> None:
    subprocess.run([str(word) for word in command], check=True, timeout=60, capture_output=True)


class Disk:
    """An image on a file system of its own, which bounds it: a thin volume in a small pool."""

    def __init__(self, base: Path, size: int, make: tuple[str, ...] = EXT4) -> None:
        base.mkdir(parents=True)
        self._pool = base
        self._points: list[Path] = []
        _run("mount", "-t", "tmpfs", "-o", f"size={size + MIB}", "pool", base)
        self._points.append(base)
        self._image = base / "image"
        self._image.touch()
        os.truncate(self._image, size)
        _run(*make, self._image)

    def mount(self, point: Path, options: str = "loop") -> None:
        point.mkdir(parents=True, exist_ok=True)
        _run("mount", "-o", options, self._image, point)
        self._points.append(point)
        lost = point / "lost+found"
        if lost.exists():
            lost.rmdir()

    def unmount(self) -> None:
        for point in reversed(self._points):
            with contextlib.suppress(subprocess.CalledProcessError):
                _run("umount", point)
                continue
            _run("umount", "--lazy", point)

    @contextlib.contextmanager
    def exhausted(self) -> Iterator[None]:
        """Within, the pool has no room for a block that was never written."""
        ballast = self._pool / "ballast"
        with open(ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(MIB))
        with open(ballast, "ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        yield
        ballast.unlink()

    @contextlib.contextmanager
    def after_a_power_cut(self, point: Path) -> Iterator[None]:
        """Within, `point` shows what would be there if the power went now."""
        copy = point.with_suffix(".img")
        shutil.copyfile(self._image, copy)
        point.mkdir()
        _run("mount", "-o", "loop", copy, point)
        try:
            yield
        finally:
            _run("umount", point)
            copy.unlink()

    def lose(self, offset: int) -> None:
        """From now on, what lies behind `offset` cannot be read."""
        os.truncate(self._image, offset)


class DiskPair:
    """Makes a pair whose directories are the roots of disks, and takes all of it down."""

    def __init__(self, base: Path, spawner: Spawner) -> None:
        self._base = base
        self._spawner = spawner
        self.disks: dict[str, Disk] = {}
        self._pairs: list[Pair] = []

    def disk(self, name: str, size: int, make: tuple[str, ...] = EXT4) -> Disk:
        self.disks[name] = Disk(self._base / f"pool-{name}", size, make)
        return self.disks[name]

    def replicate(self) -> Pair:
        """Disks that were made for a and b are below the directories: synced from the start."""
        for node in ("a", "b"):
            if node in self.disks:
                self.disks[node].mount(self._base / node / "data")
        pair = Pair(self._base, self._spawner)
        self._pairs.append(pair)
        for side in (pair.a, pair.b):
            side.settings["outdated_seconds"] = 0.5
        pair.replicate()
        return pair

    def close(self) -> None:
        for pair in self._pairs:
            pair.stop()
        for disk in self.disks.values():
            disk.unmount()


def fill(directory: Path, leave: int = 0, name: str = "filler") -> None:
    """Use all room of the file system, and give so many bytes of it back."""
    path = directory / name
    with open(path, "ab", buffering=0) as file:
        for size in (MIB, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
    os.truncate(path, max(0, path.stat().st_size - leave))
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
