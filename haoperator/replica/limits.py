# SPDX-License-Identifier: Apache-2.0
"""What the process may use: every node that the kernel knows costs one descriptor."""

from __future__ import annotations

import contextlib
import resource
import threading
import time

from haoperator.replica._hotpath import io_flusher

MOST_NODES = 32_768
"""Nodes of all directories that are kept; a surplus is let go of within a second. Each costs
some 700 bytes, and what is let go of costs a LOOKUP later."""
FULL_SECONDS = 0.005
"""What a new node is made to wait when the descriptors run out."""


def raise_limits() -> None:
    """As many open files as the unit allows (`LimitNOFILE=`).

    And PR_SET_IO_FLUSHER, which the threads to come inherit: what the kernel caches for our
    mounts must neither throttle the writes that bring it to disk, nor be waited for when
    they need memory.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.suppress(OSError):  # without CAP_SYS_RESOURCE
        io_flusher()


def open_files() -> int:
    """How many descriptors the process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft


class Crowd:
    """When there are too many nodes. `noticed` wakes whoever lets go of some."""

    def __init__(self) -> None:
        files = open_files()
        self.most = min(MOST_NODES, files // 2)
        self._full = files * 3 // 4
        self.noticed = threading.Event()

    def joined(self, count: int) -> None:
        """A directory has so many nodes now. Hold no lock: near the limit this slows down."""
        if count > self.most:
            self.noticed.set()
        if count > self._full:
            time.sleep(FULL_SECONDS)
