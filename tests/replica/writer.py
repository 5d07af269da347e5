# SPDX-License-Identifier: Apache-2.0
"""An application: writes numbered lines one by one, and remembers which calls returned.

It runs in a process of its own: a test that forks would close the file in the child, and
wait there for a replicator that it is about to start.
"""

from __future__ import annotations

import errno
import mmap
import os
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.replica.pair import wait_for

_STATE = struct.Struct("<QQQ")
"""Acknowledged writes, errno of the one that failed, wish to stop."""


class Writer:
    """`with Writer(path) as writer:` writes until the end of the block.

    `sync`: a line counts once fdatasync has returned.
    """

    def __init__(self, path: Path, *, sync: bool = False) -> None:
        self.path = path
        self._sync = sync
        self._file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - closed in __exit__
        self._file.truncate(_STATE.size)
        self._state = mmap.mmap(self._file.fileno(), _STATE.size)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Writer:
        command = [sys.executable, "-m", "tests.replica.writer", self._file.name, str(self.path)]
        command += ["sync"] if self._sync else []
        self._process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
        wait_for(lambda: self.acknowledged > 0 or self.error, "the first write")
        return self

    def __exit__(self, *_: object) -> None:
        struct.pack_into("<Q", self._state, 16, 1)
        assert self._process is not None
        try:
            self._process.wait(timeout=20)
        finally:
            self._process.kill()
            self._file.close()

    @property
    def acknowledged(self) -> int:
        count: int = struct.unpack_from("<Q", self._state, 0)[0]
        return count

    @property
    def error(self) -> str:
        """The name of the error that ended the writing, or `""`."""
        number: int = struct.unpack_from("<Q", self._state, 8)[0]
        return errno.errorcode[number] if number else ""

    def advances(self) -> None:
        """Wait until a write returned that began after this call."""
        before = self.acknowledged
        wait_for(lambda: self.acknowledged > before + 1, f"writes go on ({self.error})")


def lines_in(path: Path) -> int:
    """How many lines are there, all of them right."""
    lines = path.read_bytes().splitlines()
    assert lines == [b"%015d" % (n + 1) for n in range(len(lines))]
    return len(lines)


def main() -> None:
    with open(sys.argv[1], "r+b") as file:
        state = mmap.mmap(file.fileno(), _STATE.size)
    number = 0
    try:
        fd = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        while not struct.unpack_from("<Q", state, 16)[0]:
            number += 1
            os.pwrite(fd, b"%015d\n" % number, 16 * (number - 1))
            if "sync" in sys.argv:
                os.fdatasync(fd)
            struct.pack_into("<Q", state, 0, number)
        os.close(fd)
    except OSError as err:
        struct.pack_into("<Q", state, 8, err.errno or 0)


if __name__ == "__main__":
    main()
