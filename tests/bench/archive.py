# SPDX-License-Identifier: Apache-2.0
"""A tree of small files in a tar, the same one every time."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path

DIRECTORIES = 100
FILES = 2000
LARGEST = 16 * 1024


def make(path: Path) -> None:
    """Write the tar: FILES files of up to LARGEST bytes, a size small more often than large."""
    chance = random.Random(2026)
    data = chance.randbytes(LARGEST)
    with tarfile.open(path, "w") as archive:
        for n in range(DIRECTORIES):
            directory = tarfile.TarInfo(f"tree/{n % 10}/{n}" if n >= 10 else f"tree/{n}")
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(directory)
        for n in range(FILES):
            under = chance.randrange(10, DIRECTORIES)
            file = tarfile.TarInfo(f"tree/{under % 10}/{under}/file-{n}")
            file.size = int(LARGEST * chance.random() ** 2)
            file.mtime = 1_700_000_000 + n
            archive.addfile(file, io.BytesIO(data[: file.size]))
