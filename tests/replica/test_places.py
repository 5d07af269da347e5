# SPDX-License-Identifier: Apache-2.0
"""Where a replicated directory may lie: on the root file system, on a mount point; not in
another one by whatever way, and not above what lies on another file system."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from haoperator.replica._hotpath import mount, umount2
from haoperator.replica.mount import MountError, mount_over
from haoperator.replica.places import mounts, objection
from tests.replica.beside import failure
from tests.replica.images import MIB, DiskPair
from tests.replica.pair import Pair, wait_for
from tests.replica.test_roles import fresh
from tests.replica.trees import assert_equal_trees

MOUNTINFO = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 22 0:25 / /proc rw shared:5 - proc proc rw
31 22 254:16 / /srv rw - ext4 /dev/vdb rw
32 31 254:32 / /srv/with\\040blank rw - ext4 /dev/vdc rw
33 31 0:50 / /srv/shop rw,noatime - fuse.haoperator shop rw,user_id=0
34 22 254:16 /shop/deep /mnt/bound rw - ext4 /dev/vdb rw
35 22 254:16 / /mnt/whole rw - ext4 /dev/vdb rw
36 22 254:0 /home/data /mnt/home rw - ext4 /dev/vda1 rw
"""


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/srv/shop", "mounted already, as [replicate.shop]"),
        ("/srv/shop/below", "lie in one another"),
        ("/srv", "lie in one another"),
        ("/mnt/bound", "a bind mount leads"),
        ("/mnt/bound/deeper", "a bind mount leads"),
        ("/mnt/whole/shop", "a bind mount leads"),
        ("/mnt/whole", "a bind mount leads"),
        ("/mnt", "another file system is mounted at /mnt/bound"),
        ("/", "lie in one another"),
        ("/srv/shop2", ""),
        ("/srv/with blank", ""),
        ("/mnt/whole/other", ""),
        ("/mnt/home/a", ""),
        ("/home/data", ""),
        ("/var/lib/data", ""),
    ],
)
def test_objections(path: str, said: str) -> None:
    found = objection(path, mounts(MOUNTINFO))
    assert said in found
    assert bool(said) == bool(found)


@contextlib.contextmanager
def mounted(*command: str | Path) -> Iterator[None]:
    """The last word is where."""
    subprocess.run(["mount", *command], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", command[-1]], check=True)


def test_the_same_place_twice_is_refused_whatever_leads_there(pair: Pair) -> None:
    pair.a.boot()
    path = pair.a.path
    (path.parent / "link").symlink_to(path)
    (path.parent / "alias").mkdir()
    (pair.a.backing / "below").mkdir()
    with mounted("--bind", path.parent, path.parent / "alias"):
        for other in (path, path.parent / "link", path.parent / "alias" / "data", path.parent):
            with pytest.raises(MountError, match=r"replicate\.data"):
                mount_over("other", str(other))


def test_a_file_system_below_is_refused_before_the_mount(pair: Pair) -> None:
    below = pair.a.path / "below"
    below.mkdir()
    with mounted("-t", "tmpfs", "tmpfs", below):
        with pytest.raises(MountError, match=f"another file system is mounted at {below}"):
            pair.a.boot()
        assert not any(one.ours for one in mounts() if str(one.point) == str(pair.a.path))


def test_a_file_system_that_comes_later_is_refused_by_name(synced: Pair) -> None:
    """Mounted below us by way of the covered directory: the peer does not have it."""
    a, b = synced.a, synced.b
    (a.path / "before").write_text("x")
    for side in (a, b):
        (side.backing / "foreign").mkdir()
    hidden = Path(f"/proc/{os.getpid()}/fd/{a.fds['data'][1]}/foreign")
    mount(b"tmpfs", os.fsencode(hidden), b"tmpfs", 0, b"")  # mount(8) would resolve the path
    try:
        (hidden / "secret").write_text("not replicated")
        for action in (os.stat, os.listdir, os.rmdir):
            assert failure(action, a.path / "foreign") in ("EXDEV", "EBUSY")
        assert failure(os.stat, a.path / "foreign" / "secret") == "EXDEV"
        assert failure(os.rename, a.path / "foreign", a.path / "moved") == "EXDEV"
        assert sorted(os.listdir(a.path)) == ["before", "foreign"]
        assert a.log_text().count("foreign is another file system's") == 1
        (a.path / "after").write_text("y")
        # A resync of everything goes round it, and is complete with all the rest.
        b.power_cut()
        (b.base / "b" / "record.json").unlink()
        b.boot()
        a.wait_stream("held", "alone", "resync", "synced")
        if a.stream == "held":
            a.call("continue_alone", generation=fresh(), within=60.0)
        wait_for(lambda: a.stream == b.stream == "synced", "both are synced")
    finally:
        umount2(os.fsencode(hidden), 2)
    assert (a.path / "foreign").is_dir()
    (a.path / "foreign" / "file").write_text("ours again")
    assert_equal_trees(a.backing, b.backing)


def test_a_subvolume_of_the_file_system_is_no_foreign_place(on_disks: DiskPair) -> None:
    """It has a device number of its own, and is replicated as a directory like any other."""
    on_disks.disk("a", 128 * MIB, ("mkfs.btrfs", "-q", "--nodiscard"))
    pair = on_disks.replicate()
    hidden = f"/proc/{os.getpid()}/fd/{pair.a.fds['data'][1]}/sub"
    subprocess.run(["btrfs", "-q", "subvolume", "create", hidden], check=True)
    (pair.b.backing / "sub").mkdir()
    (pair.a.path / "sub" / "file").write_text("in the subvolume")
    assert (pair.b.path / "sub" / "file").read_text() == "in the subvolume"
    assert failure(os.link, pair.a.path / "sub" / "file", pair.a.path / "link") == "EXDEV"
    assert pair.a.stream == "synced"
