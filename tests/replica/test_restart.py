# SPDX-License-Identifier: Apache-2.0
"""The replicator dies and comes back on the same mount: applications see a pause, no error."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from haoperator.replica.beneath import remove_tree
from tests.replica.pair import Node, Pair, wait_for
from tests.replica.trees import assert_equal_trees
from tests.replica.writer import Writer, lines_in


def restart(node: Node) -> None:
    """SIGKILL, and a new process that gets the descriptors which systemd would have kept."""
    node.kill()
    node.start(restored=True)


def test_restarted_primary_goes_on_without_an_error(synced: Pair) -> None:
    a = synced.a
    (a.path / "dir").mkdir()
    (a.path / "dir" / "large").write_bytes(bytes(1_000_000))
    with (
        Writer(a.path / "dir" / "log") as writer,
        Writer(a.path / "other") as other,
        open(a.path / "dir" / "large", "rb", buffering=0) as reading,
    ):
        for _ in range(3):
            before = writer.acknowledged
            restart(a)
            assert a.state["role"] == "held"
            assert len(reading.read(200_000)) == 200_000  # reads are served meanwhile
            a.call("become_primary", generation="")
            writer.advances()
            other.advances()
            assert writer.acknowledged > before
            a.wait_stream("synced")
    assert not writer.error
    assert not other.error
    assert lines_in(a.path / "dir" / "log") == writer.acknowledged
    assert_equal_trees(a.backing, synced.b.backing)


def test_names_are_changed_across_a_restart(synced: Pair) -> None:
    a = synced.a
    script = """
import os, sys, shutil
base = sys.argv[1]
os.chdir(base)
step = 0
while not os.path.exists('stop'):
    step += 1
    os.mkdir(f'd{step}')
    with open(f'd{step}/new', 'x') as file:
        file.write(str(step))
    os.rename(f'd{step}/new', f'd{step}/file')
    os.link(f'd{step}/file', f'd{step}/hard')
    os.symlink('file', f'd{step}/soft')
    os.unlink(f'd{step}/hard')
    if step > 20:
        shutil.rmtree(f'd{step - 20}')
print(step)
"""
    work = subprocess.Popen(
        [sys.executable, "-c", script, str(a.path)], stdout=subprocess.PIPE, text=True
    )
    for _ in range(5):
        wait_for(lambda: a.state["hot"]["sent"] > 50, "some work was done")
        restart(a)
        a.call("become_primary", generation="")
        a.wait_stream("synced")
    (a.path / "stop").touch()
    output, _ = work.communicate(timeout=20)
    assert work.returncode == 0
    assert int(output) > 20
    assert_equal_trees(a.backing, synced.b.backing)


def test_restarted_standby_serves_reads_and_returns(synced: Pair) -> None:
    a, b = synced.a, synced.b
    (a.path / "file").write_text("x")
    with open(b.path / "file") as reading:
        assert reading.read(1) == "x"
        restart(b)
        b.call("become_secondary")
        a.wait_stream("synced")
        reading.seek(0)
        assert reading.read() == "x"
        with pytest.raises(OSError, match="Read-only"):
            (b.path / "new").touch()
    assert_equal_trees(a.backing, b.backing)


def test_held_after_a_restart_until_the_operator_decides(synced: Pair) -> None:
    a = synced.a
    restart(a)

    def make() -> None:
        (a.path / "new").write_text("late")

    made = threading.Thread(target=make)
    made.start()
    wait_for(lambda: a.state["hot"]["parked"] > 0, "the change waits")
    assert a.state["role"] == "held"
    a.call("become_primary", generation="")
    made.join()
    a.wait_stream("synced")
    assert (synced.b.path / "new").read_text() == "late"


def test_restarted_primary_that_was_alone_is_writable_at_once(pair: Pair) -> None:
    pair.a.boot()
    pair.a.begin()
    (pair.a.path / "one").touch()
    restart(pair.a)
    pair.a.call("become_primary", generation="")
    assert pair.a.stream == "alone"
    (pair.a.path / "two").touch()


def test_unmounted_directory_is_given_back(pair: Pair) -> None:
    a = pair.a
    a.boot()
    a.begin()
    (a.path / "file").touch()
    subprocess.run(["umount", str(a.path)], check=True)
    wait_for(lambda: not a.state["directories"][0]["mounted"], "it is given back")
    a.close_fds()
    assert (a.path / "file").exists()
    a.mount()
    assert a.state["directories"][0]["mounted"]
    (a.path / "again").touch()


def test_second_mount_over_the_same_path_is_refused(pair: Pair) -> None:
    from haoperator.replica.mount import MountError, mount_over

    pair.a.boot()
    with pytest.raises(MountError, match="mounted already"):
        mount_over("data", str(pair.a.path))


def test_refused_mount_leaves_nothing_mounted(pair: Pair, tmp_path: Path) -> None:
    from haoperator.replica.mount import MountError, mount_and_hand_over
    from haoperator.replica.places import mounted_type

    pair.a.start()
    address = Path(pair.a.settings["run_directory"]) / "replicator.sock"
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(MountError, match=r"no \[replicate\.unknown\]"):
        mount_and_hand_over("unknown", str(other), "", address)
    assert mounted_type(str(other)) is None
    with pytest.raises(MountError, match="does not answer"):
        mount_and_hand_over("data", str(other), "", tmp_path / "nobody.sock")
    assert mounted_type(str(other)) is None


def test_no_node_id_is_given_out_twice_across_a_restart(pair: Pair) -> None:
    """With the directory's id given to one of its files, paths would lead in a circle."""
    a, b = pair.a, pair.b
    shop = a.path / "shop"
    shop.mkdir()
    (shop / "old").write_text("older than the mount")
    pair.replicate()
    held = os.open(shop, os.O_RDONLY)  # so that the kernel goes on using its id
    try:
        restart(a)
        a.call("become_primary", generation="")
        a.wait_stream("synced")
        for number in range(50):
            (shop / str(number)).write_text("gets the next id")
    finally:
        os.close(held)
    assert_equal_trees(a.backing, b.backing)


def test_restart_in_a_tree_that_is_deeper_than_python_recurses(synced: Pair) -> None:
    a = synced.a
    at = os.open(a.path, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    restart(a)
    a.call("become_primary", generation="")
    with open(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=at), "w", encoding="ascii") as file:
        file.write("written down there")
    a.wait_stream("synced")
    deep = "/".join(["d"] * 1500)
    assert (synced.b.backing / deep / "file").read_text() == "written down there"
    os.close(at)
    remove_deep(a.path)


def remove_deep(root: Path) -> None:
    fd = os.open(root, os.O_RDONLY)
    remove_tree(fd, b"d")
    os.close(fd)
