# SPDX-License-Identifier: Apache-2.0
"""A lock between processes and threads that a dead holder gives back by itself."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds `path`, which is made if need be and stays, as an exclusive lock: flock(2)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
