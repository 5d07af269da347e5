# SPDX-License-Identifier: Apache-2.0
"""Replicators whose C extension watches itself: no access out of bounds, no data race.

Threads of an application change everything at once, while the stream is lost and found,
a replicator is killed and the roles are exchanged. What a sanitizer has to say ends the
replicator, and `Pair.stop` fails with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.replica import sanitizers
from tests.replica.pair import ROOT, Pair
from tests.replica.sanitizers import Sanitizer
from tests.replica.spawner import Spawner
from tests.replica.trees import assert_equal_trees

DIRECTORIES = ("data", "log")
ROUNDS = 25
"""Of each thread, before each thing that happens to the pair."""


@pytest.mark.parametrize("sanitizer", Sanitizer)
def test_a_sanitizer_reports(sanitizer: Sanitizer) -> None:
    """The one thing that would make all others here worthless."""
    command = sanitizers.command(
        sanitizer, sanitizers.build(sanitizer), "tests.replica.culprit", sanitizer
    )
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ran.returncode != 0
    assert sanitizers.reports(ran.stderr), ran.stderr


@pytest.mark.parametrize(
    ("sanitizer", "symbol"), [(Sanitizer.ADDRESS, "__asan_"), (Sanitizer.THREAD, "__tsan_write8")]
)
def test_the_extension_is_instrumented(sanitizer: Sanitizer, symbol: str) -> None:
    built = sanitizers.build(sanitizer)
    symbols = subprocess.run(["nm", "-D", built], capture_output=True, text=True, check=True)
    assert symbol in symbols.stdout


def write(place: Path, n: int) -> None:
    with open(place / f"w{n % 5}", "wb", buffering=0) as file:
        for _ in range(4):
            file.write(os.urandom(3000 * (n % 9 + 1)))


def sync(place: Path, n: int) -> None:
    fd = os.open(place / "synced", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        os.pwrite(fd, b"x" * 100, n * 100)
        (os.fsync if n % 2 else os.fdatasync)(fd)
    finally:
        os.close(fd)
    directory = os.open(place, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def names(place: Path, n: int) -> None:
    one, other = place / f"n{n % 7}", place / "below" / f"n{n % 3}"
    one.write_bytes(b"name")
    other.parent.mkdir(exist_ok=True)
    os.replace(one, other)
    os.link(other, one)
    one.unlink()
    if n % 3 == 0:
        shutil.rmtree(other.parent)


def attributes(place: Path, n: int) -> None:
    path = place / "attributes"
    path.touch()
    os.chmod(path, 0o600 + n % 64)
    os.setxattr(path, "user.n", b"%d" % n)
    os.truncate(path, n * 1000)
    os.utime(path, ns=(n, n))


def nameless(place: Path, n: int) -> None:
    path = place / "gone"
    # A replicator that is started again does not know files without a name.
    with contextlib.suppress(OSError), open(path, "w+b", buffering=0) as file:
        path.unlink()
        file.write(b"y" * 5000)
        os.fsync(file.fileno())
        assert os.pread(file.fileno(), 5000, 0) == b"y" * 5000


WORK = (write, sync, names, attributes, nameless)


class Load:
    """Every kind of work in every directory, each in a thread of its own.

    No mmap: a page fault would wait for a replicator with the interpreter's lock held.
    """

    def __init__(self, pair: Pair) -> None:
        self._stop = threading.Event()
        self._failed: list[BaseException] = []
        self._rounds: dict[tuple[str, str], int] = {}
        self._moved = threading.Condition()
        self._threads = [
            threading.Thread(target=self._run, args=(name, path, work), daemon=True)
            for name, path in pair.a.paths.items()
            for work in WORK
        ]

    def _run(self, name: str, path: Path, work: Callable[[Path, int], None]) -> None:
        place = path / work.__name__
        try:
            place.mkdir(exist_ok=True)
            done = 0
            while not self._stop.is_set():
                work(place, done)
                done += 1
                with self._moved:
                    self._rounds[name, work.__name__] = done
                    self._moved.notify_all()
        except BaseException as err:
            with self._moved:
                self._failed.append(err)
                self._moved.notify_all()

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop.set()
        for thread in self._threads if kind is None else ():  # else who knows what they wait for
            thread.join(60)

    def go_on(self) -> None:
        """Until each thread has done so many rounds more."""
        with self._moved:
            goals = {key: self._rounds.get(key, 0) + ROUNDS for key in self._keys()}

            def reached() -> bool:
                return bool(self._failed) or all(
                    self._rounds.get(key, 0) >= goal for key, goal in goals.items()
                )

            assert self._moved.wait_for(reached, 60), self._rounds
            assert not self._failed, self._failed

    @staticmethod
    def _keys() -> Iterator[tuple[str, str]]:
        return ((name, work.__name__) for name in DIRECTORIES for work in WORK)


@pytest.fixture(params=Sanitizer)
def watched(request: pytest.FixtureRequest, tmp_path: Path, spawner: Spawner) -> Iterator[Pair]:
    """A synced pair with two directories."""
    two = Pair(tmp_path, spawner, directories=DIRECTORIES, sanitizer=request.param)
    try:
        two.replicate()
        yield two
    finally:
        two.stop()


def test_no_report_whatever_happens(watched: Pair) -> None:
    pair = watched
    with Load(pair) as load:
        load.go_on()

        pair.b.power_cut()
        pair.a.wait_stream("held")
        pair.a.call("continue_alone", generation="c" * 16)
        load.go_on()
        pair.b.boot()
        pair.a.wait_stream("resync", "synced")
        load.go_on()
    pair.a.wait_stream("synced")

    with Load(pair) as load:
        load.go_on()
        pair.a.kill()
        pair.a.start(restored=True)
        pair.a.call("become_primary", generation="")
        load.go_on()
    pair.a.wait_stream("synced")

    pair.a.call("become_secondary")
    pair.b.call("become_primary", generation="")
    pair.b.wait_stream("synced")
    (pair.b.path / "swapped").write_bytes(b"s")
    for name in DIRECTORIES:
        assert_equal_trees(pair.a.backing_of(name), pair.b.backing_of(name), seconds=20)
