# SPDX-License-Identifier: Apache-2.0
"""Numbered lines, appended to one file by whichever node may. Sent to a node's python3 as it is.

    appending.py MOUNT FILE WRITER

Many times a second the next line is written through the mount, with O_APPEND, and
fsynced. Each attempt is told on a line of its own, with CLOCK_MONOTONIC, which all nodes
of the lab share:

    BEGIN END NUMBER ANSWER

where the answer is `acknowledged`, or what the kernel said instead. An attempt that the
replicator holds back simply lasts.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time

PAUSE = 0.02
"""Seconds between two attempts."""


def append(mount: str, path: str, line: bytes) -> None:
    """Raises OSError unless all of `line` is in the replicated file, fsynced."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        # While nothing is mounted the directory below it is seen, and is nobody's to write.
        if os.fstat(fd).st_dev == os.stat(f"{mount}/..").st_dev:
            raise OSError(0, "not mounted")
        if os.write(fd, line) != len(line):
            raise OSError(0, "half a line")
        os.fsync(fd)
    finally:
        os.close(fd)


def main(mount: str, path: str, writer: str) -> None:
    ctypes.CDLL(None).prctl(1, 9)  # PR_SET_PDEATHSIG: it ends with the nsenter that brought it
    number = 0
    while True:
        number += 1
        begin = time.monotonic()
        try:
            append(mount, path, f"{writer} {number}\n".encode())
            answer = "acknowledged"
        except OSError as err:
            answer = err.strerror or str(err)
        print(f"{begin:.6f} {time.monotonic():.6f} {number} {answer}", flush=True)
        time.sleep(PAUSE)


if __name__ == "__main__":
    main(*sys.argv[1:])
