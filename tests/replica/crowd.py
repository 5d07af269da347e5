# SPDX-License-Identifier: Apache-2.0
"""Many writers and readers at once: each knows what it must find, and none accepts an error.

They run in a process of their own, as writer.py says why.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from tests.replica.pair import wait_for

PLACES = 4
"""Blocks of each file: they are written again and again, so that an old one would show."""
KNOWN_BYTES = 2_000_000


class Crowd:
    """`with Crowd(directory, files, size):` writes files there until the end of the block."""

    def __init__(self, directory: Path, outside: Path, *, writers: int, size: int) -> None:
        self.directory = directory
        self._stop = outside / "stop"
        self._progress = outside / "progress"
        self._progress.write_bytes(bytes(8 * (writers + 1)))
        arguments = [str(directory), str(outside), str(writers), str(size)]
        self._command = [sys.executable, "-m", "tests.replica.crowd", *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self.failed = False

    def __enter__(self) -> Crowd:
        self._process = subprocess.Popen(self._command, cwd=Path(__file__).parents[2])
        wait_for(lambda: all(self.done()), "everybody did something")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.touch()
        assert self._process is not None
        try:
            self.failed = self._process.wait(timeout=40) != 0
        finally:
            self._process.kill()
            self._stop.unlink()

    def done(self) -> list[int]:
        """How often each writer, and last the reader, was answered."""
        return list(memoryview(self._progress.read_bytes()).cast("Q"))

    def advances(self) -> None:
        """Wait until everybody was answered once more. None of them may have failed."""
        before = self.done()

        def more() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, "somebody got an error"
            return all(now > then for now, then in zip(self.done(), before, strict=True))

        wait_for(more, "everybody goes on", 40)


def known() -> bytes:
    return b"".join(b"%07d\n" % n for n in range(KNOWN_BYTES // 8))


def _block(writer: int, number: int, size: int) -> bytes:
    return (b"%03d %011d\n" % (writer, number)) * (size // 16)


def _write(directory: str, writer: int, size: int, over: threading.Event, count: list[int]) -> None:
    written: dict[int, bytes] = {}
    fd = os.open(f"{directory}/crowd-{writer}", os.O_RDWR | os.O_CREAT, 0o600)
    number = 0
    while not over.is_set():
        number += 1
        place, data = number % PLACES, _block(writer, number, size)
        assert os.pwrite(fd, data, place * size) == size
        written[place] = data
        if number % 3 == 0:
            os.fsync(fd)
        count[writer] = number
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    for place, data in written.items():
        assert os.pread(fd, size, place * size) == data, f"writer {writer}, place {place}"
    os.close(fd)


def _read(directory: str, over: threading.Event, count: list[int]) -> None:
    expected = known()
    fd = os.open(f"{directory}/known", os.O_RDONLY)
    while not over.is_set():
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert os.pread(fd, KNOWN_BYTES, 0) == expected
        assert sorted(os.listdir(directory)).count("known") == 1
        count[-1] += 1
    os.close(fd)


def main() -> None:
    directory, outside, writers, size = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
    over, count = threading.Event(), [0] * (writers + 1)
    failed: list[BaseException | None] = []

    def note(problem: threading.ExceptHookArgs) -> None:
        failed.append(problem.exc_value)
        threading.__excepthook__(problem)
        over.set()

    threading.excepthook = note
    threads = [
        threading.Thread(target=_write, args=(directory, n, size, over, count))
        for n in range(writers)
    ]
    threads.append(threading.Thread(target=_read, args=(directory, over, count)))
    for thread in threads:
        thread.start()
    progress = os.open(outside / "progress", os.O_WRONLY)
    while not over.wait(0.01):
        os.pwrite(progress, b"".join(n.to_bytes(8, "little") for n in count), 0)
        if (outside / "stop").exists():
            over.set()
    for thread in threads:
        thread.join()
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
