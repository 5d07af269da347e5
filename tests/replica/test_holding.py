# SPDX-License-Identifier: Apache-2.0
"""`mount.haoperator --hold`: up as long as the mount is, over a mount point as well."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from haoperator.replica.places import FILE_SYSTEM, mounted_type
from tests.replica.images import MIB, Disk
from tests.replica.pair import ROOT, Node, Pair, wait_for

PROGRAM = """
import sys
from pathlib import Path
from haoperator.replica import mount
mount.mount_and_hand_over.__defaults__ = (Path(sys.argv.pop(1)),)
sys.exit(mount.main())
"""
"""The program, with the socket of the replicator under test."""


@contextmanager
def holder(node: Node, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Started as systemd does it; it has said that it is ready."""
    address = tmp_path / "notify"
    address.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
        ready.bind(str(address))
        ready.settimeout(30)
        replicator = Path(node.settings["run_directory"]) / "replicator.sock"
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(replicator), "--hold", "data", str(node.path)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "NOTIFY_SOCKET": str(address)},
            cwd="/",
        )
        try:
            assert ready.recv(100) == b"READY=1"
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def on_a_mount_point(tmp_path: Path, pair: Pair) -> Iterator[Node]:
    """A node whose directory is a mount point of fstab's, so to say."""
    disk = Disk(tmp_path / "pool", 12 * MIB)
    disk.mount(pair.a.path)
    pair.a.start()
    try:
        yield pair.a
    finally:
        pair.stop()
        disk.unmount()


def mounted(node: Node) -> bool:
    return bool(node.state["directories"][0]["mounted"])


def test_stopping_it_uncovers_the_file_system_below(on_a_mount_point: Node, tmp_path: Path) -> None:
    node = on_a_mount_point
    (node.path / "file").write_text("below")
    with holder(node, tmp_path) as process:
        assert mounted(node)
        assert (node.path / "file").read_text() == "below"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    wait_for(lambda: not mounted(node), "the replicator knows that it is unmounted")
    assert mounted_type(str(node.path)) == "ext4"


def test_it_ends_when_somebody_unmounts(on_a_mount_point: Node, tmp_path: Path) -> None:
    node = on_a_mount_point
    with holder(node, tmp_path) as process:
        subprocess.run(["umount", node.path], check=True)
        assert process.wait(20) == 0
        assert mounted_type(str(node.path)) == "ext4"


def test_a_new_holder_takes_up_the_mount_of_a_former_one(
    on_a_mount_point: Node, tmp_path: Path
) -> None:
    node = on_a_mount_point
    with holder(node, tmp_path) as first:
        first.kill()
        first.wait()
    assert mounted(node) and mounted_type(str(node.path)) == FILE_SYSTEM
    with holder(node, tmp_path) as second:
        assert mounted(node)
        second.send_signal(signal.SIGTERM)
        assert second.wait(20) == 0
    assert mounted_type(str(node.path)) == "ext4"
