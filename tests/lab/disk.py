# SPDX-License-Identifier: Apache-2.0
"""The data disk of a node: an ext4 image behind a loop device, so that fsync means something.

When the power goes, a disk holds what was written to it and nothing else. The
page cache of the machine would survive the node's death and hide every missing
fsync, so the file system is shut down as its own tests do it: from that moment
on nothing more reaches the image, and the next mount recovers from the journal.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .command import run
from .waiting import until

FS_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32), fs/ext4/ext4.h
NOLOGFLUSH = 2  # do not even flush the journal
SIZE = 4 << 30  # sparse


def create(image: Path) -> None:
    """Makes an empty file system. Its tables are written at once, not in the background."""
    with image.open("wb") as file:
        file.truncate(SIZE)
    eager = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
    run("mkfs.ext4", "-q", "-F", "-m", "0", "-E", eager, image)


@contextmanager
def cut_after(directory: Path) -> Iterator[None]:
    """Cuts the power of the disk that `directory` lies on at the end of the block.

    The directory is opened before, because the node that shows it may die in the block.
    """
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield
        _shut_down(opened)
    finally:
        os.close(opened)


def kill(directory: Path) -> None:
    """The disk that `directory` lies on dies under its node: every access fails with EIO."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _shut_down(opened)
    finally:
        os.close(opened)


def _shut_down(opened: int) -> None:
    fcntl.ioctl(opened, FS_IOC_SHUTDOWN, struct.pack("I", NOLOGFLUSH))


def wait_released(image: Path) -> None:
    """Returns when no loop device serves `image` any more: the last mount of it is gone."""

    def loops() -> str:
        listed = run("losetup", "--list", "--noheadings", "--output=NAME", "--associated", image)
        return listed.stdout.strip()

    until(lambda: not loops(), f"the release of {image}", within=15, hint=loops)
