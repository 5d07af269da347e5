# SPDX-License-Identifier: Apache-2.0
"""A quota that is used up: on the primary the caller is told, on the standby it is outdated.

On btrfs, whose quotas need nothing of the kernel but btrfs; they bind root, too.
"""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path

from haoperator.replica._hotpath import fallocate
from tests.replica.beside import failure, in_child
from tests.replica.images import MIB, DiskPair
from tests.replica.pair import wait_for
from tests.replica.test_roles import fresh
from tests.replica.trees import assert_equal_trees

SIZE = 128 * MIB
BTRFS = ("mkfs.btrfs", "-q", "--nodiscard", "--metadata", "single")


def limit(root: Path, size: str) -> None:
    """Bound what the directory may hold; "none" lifts it."""
    path = os.fspath(root).replace("/self/", f"/{os.getpid()}/")  # as the child sees it
    for command in (["quota", "enable", path], ["qgroup", "limit", size, path]):
        subprocess.run(["btrfs", *command], check=True, timeout=60, capture_output=True)


def use_up(root: Path) -> list[str]:
    """Write, allocate and make until the quota says no."""
    fd = os.open("file", os.O_CREAT | os.O_WRONLY, 0o644)
    found = ""
    for _ in range(40):
        found = found or failure(os.write, fd, os.urandom(MIB))
        os.fsync(fd)
    return [
        found,
        failure(os.pwrite, fd, os.urandom(MIB), 60 * MIB),
        failure(fallocate, fd, 0, 80 * MIB, 10 * MIB),
        failure(fallocate, fd, 1, 80 * MIB, 10 * MIB),
    ]


def test_a_quota_on_the_primary_is_the_callers_alone(on_disks: DiskPair) -> None:
    on_disks.disk("a", SIZE, BTRFS)
    pair = on_disks.replicate()
    a, b = pair.a, pair.b
    plain = a.base / "plain"
    on_disks.disk("plain", SIZE, BTRFS).mount(plain)
    for root in (a.backing, plain):
        limit(root, "8M")
    found = in_child(use_up, a.path)
    assert found == in_child(use_up, plain)
    assert found == ["EDQUOT"] * 4
    assert_equal_trees(a.backing, b.backing)
    assert (a.stream, b.stream) == ("synced", "synced")
    limit(a.backing, "none")
    (a.path / "after").write_bytes(os.urandom(MIB))
    assert_equal_trees(a.backing, b.backing)


def test_a_quota_on_the_standby_makes_it_outdated_and_nobody_fail(on_disks: DiskPair) -> None:
    on_disks.disk("b", SIZE, BTRFS)
    pair = on_disks.replicate()
    a, b = pair.a, pair.b
    limit(b.backing, "8M")
    content = os.urandom(16 * MIB)
    worker = threading.Thread(target=lambda: (a.path / "file").write_bytes(content))
    worker.start()
    wait_for(lambda: not b.record["up_to_date"], "b knows that it is outdated")
    a.wait_stream("held")
    a.call("continue_alone", generation=fresh(), within=60.0)
    worker.join(30)
    assert "quota exceeded" in b.log_text()
    assert (a.path / "file").read_bytes() == content
    limit(b.backing, "none")
    a.wait_stream("synced", seconds=40)
    assert_equal_trees(a.backing, b.backing)
