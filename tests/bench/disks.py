# SPDX-License-Identifier: Apache-2.0
"""The disks of the two nodes: journaled ext4 images behind loop devices."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.bench.command import mounted, run

IMAGE_BYTES = 12 << 30  # sparse


@contextlib.contextmanager
def disk(base: Path, node: str) -> Iterator[Path]:
    """A fresh file system for one node, mounted for the time of the block."""
    image, point = base / f"{node}.img", base / node
    with image.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    eager = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
    run("mkfs.ext4", "-q", "-F", "-O", "has_journal", "-E", eager, image)
    point.mkdir()
    with mounted(point, "mount", "-o", "loop", image, point):
        yield point
