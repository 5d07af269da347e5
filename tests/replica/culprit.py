# SPDX-License-Identifier: Apache-2.0
"""Does what a sanitizer must report: `address` or `thread`."""

from __future__ import annotations

import ctypes
import sys
import threading
import time

from tests.replica.sanitizers import Sanitizer

SECONDS = 30.0
"""The report ends the process; usually at once."""


def overflow() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.memset(ctypes.c_void_p(libc.malloc(8)), 1, 9)


def race() -> None:
    libc, memory = ctypes.CDLL(None), ctypes.create_string_buffer(64)
    until = time.monotonic() + SECONDS

    def work() -> None:  # a foreign function runs without the GIL
        while time.monotonic() < until:
            libc.memset(memory, 1, 64)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    overflow() if Sanitizer(sys.argv[1]) is Sanitizer.ADDRESS else race()
