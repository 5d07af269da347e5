# SPDX-License-Identifier: Apache-2.0
"""Several directories share one ordered stream, and one role."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.replica.pair import Pair, wait_for
from tests.replica.spawner import Spawner
from tests.replica.test_resync import churning, fill
from tests.replica.test_roles import fresh
from tests.replica.trees import assert_equal_trees


@pytest.fixture
def three(tmp_path: Path, spawner: Spawner) -> Iterator[Pair]:
    two = Pair(tmp_path, spawner, directories=("data", "more", "third"))
    try:
        yield two
    finally:
        two.stop()


def assert_all_equal(pair: Pair) -> None:
    for name in pair.a.paths:
        assert_equal_trees(pair.a.backing_of(name), pair.b.backing_of(name))


def test_all_directories_are_replicated(three: Pair) -> None:
    for number, path in enumerate(three.a.paths.values()):
        fill(path, files=20, seed=number)
    three.replicate()
    assert_all_equal(three)
    with churning(three.a.paths["more"], range(1)), churning(three.a.paths["third"], range(1, 2)):
        for number in range(100):
            (three.a.path / f"{number}").write_bytes(os.urandom(1000))
    assert_all_equal(three)


def test_writes_to_two_directories_keep_their_order_at_the_standby(three: Pair) -> None:
    """A log that is written after its data is never ahead of it."""
    three.replicate()
    data, log = three.a.paths["data"] / "data", three.a.paths["more"] / "log"
    data.touch()
    log.touch()
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            for path in (data, log):
                with open(path, "r+b", buffering=0) as file:
                    file.write(b"%010d" % number)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(300):
            logged = (three.b.paths["more"] / "log").read_bytes()
            written = (three.b.paths["data"] / "data").read_bytes()
            assert int(written or b"0") >= int(logged or b"0")
    finally:
        stop.set()
        writer.join()


def test_restart_under_all_directories(three: Pair) -> None:
    three.replicate()
    a = three.a
    files = [open(path / "open", "w") for path in a.paths.values()]  # noqa: SIM115
    try:
        for turn in range(3):
            for file in files:
                file.write(f"{turn} ")
                file.flush()
            a.kill()
            a.start(restored=True)
            a.call("become_primary", generation="")
            for path in a.paths.values():
                (path / f"new-{turn}").mkdir()
        a.wait_stream("synced")
    finally:
        for file in files:
            file.close()
    assert_all_equal(three)


def test_role_waits_for_all_mounts(three: Pair) -> None:
    a = three.a
    a.boot()
    subprocess.run(["umount", str(a.paths["more"])], check=True)
    wait_for(lambda: not a.state["directories"][1]["mounted"], "it is unmounted")
    with pytest.raises(RuntimeError, match="not all replicated directories"):
        a.call("become_primary", generation=fresh())


def test_hand_over_of_all_directories(three: Pair) -> None:
    three.replicate()
    for path in three.a.paths.values():
        (path / "file").write_text("x")
    three.a.call("become_secondary")
    three.b.call("become_primary", generation="")
    three.b.wait_stream("synced")
    for path in three.b.paths.values():
        (path / "file").write_text("y")
    for path in three.a.paths.values():
        assert (path / "file").read_text() == "y"


def test_a_pair_without_directories_still_has_roles(tmp_path: Path, spawner: Spawner) -> None:
    bare = Pair(tmp_path, spawner, directories=())
    try:
        bare.replicate()
        bare.a.call("become_secondary")
        assert bare.b.stream == "handed-over"
        bare.b.call("become_primary", generation="")
        bare.b.wait_stream("synced")
    finally:
        bare.stop()
