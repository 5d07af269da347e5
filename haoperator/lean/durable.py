# SPDX-License-Identifier: Apache-2.0
"""Small files that survive a power cut whole: the old content or the new one."""

from __future__ import annotations

import os
from pathlib import Path


def interrupted(path: Path) -> Path:
    """Where `replace` prepares the new content; what is found there is of an interrupted one."""
    return path.with_name(path.name + ".new")


def replace(path: Path, data: bytes) -> None:
    """Put `data` in place of the file, mode 0600; it is on disk when this returns.

    Raises OSError, and leaves what was there.
    """
    temporary = interrupted(path)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(temporary, path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
