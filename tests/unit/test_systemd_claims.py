# SPDX-License-Identifier: Apache-2.0
"""Directories that are mount points: their unit's name is taken, ours is a service after it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

import tomlconfig
from haoperator.systemd import names, texts
from haoperator.systemd.claims import claimed
from tests.unit.test_systemd_units import directory, verify

__all__ = ["directory"]
FSTAB = """\
# a comment /srv/commented ext4
UUID=1  /                ext4  errors=remount-ro 0 1
UUID=2  /srv/disk/       xfs   noauto            0 2
UUID=3  /srv/with\\040blank ext4 defaults 0 2
UUID=4  none             swap  sw 0 0
broken
"""
CONFIG = """\
[cluster]
name = "c"
[node.a]
[node.b]
[link.l]
a = "10.0.0.1"
b = "10.0.0.2"
[replicate.plain]
path = "/srv/plain"
[replicate.disk]
path = "/srv/disk"
[replicate.odd]
path = '/srv/with blank$"x'
"""


@pytest.mark.parametrize(
    ("path", "taken"),
    [
        ("/srv/disk", True),
        ("/srv/with blank", True),
        ("/srv/by-unit", True),
        ("/srv/disk/below", False),
        ("/srv", False),
        ("/srv/commented", False),
        ("/srv/plain", False),
    ],
)
def test_fstab_and_unit_files_take_a_name(tmp_path: Path, path: str, taken: bool) -> None:
    (tmp_path / "fstab").write_text(FSTAB)
    (tmp_path / names.mount(PurePosixPath("/srv/by-unit"))).touch()
    found = claimed([Path(path)], tmp_path / "fstab", [tmp_path, tmp_path / "none"])
    assert found == ({Path(path)} if taken else set())


def test_without_fstab_nothing_is_taken(tmp_path: Path) -> None:
    assert claimed([Path("/srv/disk")], tmp_path / "none", [tmp_path]) == set()


def generated() -> texts.Generated:
    config = tomlconfig.parse(CONFIG.encode(), Path("/etc/haoperator/cluster.toml"))
    return texts.for_config(config, {Path("/srv/disk"), Path('/srv/with blank$"x')})


def test_service_stands_in_for_the_mount_unit_everywhere() -> None:
    made = generated()
    assert "srv-disk.mount" not in made.files
    unit = made.files["ha-mount@disk.service"]
    assert 'RequiresMountsFor="/srv/disk"\n' in unit
    assert 'ExecStart=/usr/sbin/mount.haoperator --hold disk "/srv/disk"\n' in unit
    assert "Type=notify\n" in unit
    odd = made.files["ha-mount@odd.service"]
    assert '--hold odd "/srv/with blank$$\\"x"\n' in odd
    assert 'RequiresMountsFor="/srv/with blank$\\"x"\n' in odd
    mounts = "srv-plain.mount ha-mount@disk.service ha-mount@odd.service"
    gate = made.files["ha-promote.service.d/50-haoperator.conf"]
    assert f"BindsTo={mounts}\nAfter={mounts}\n" in gate
    assert f"Upholds={mounts}\n" in made.files["ha-replicator.service.d/50-haoperator.conf"]
    wanted = "ha-cluster.target.wants/ha-mount@disk.service"
    assert made.links[wanted] == "../ha-mount@disk.service"


def test_systemd_finds_nothing_wrong_with_it(directory: Path) -> None:
    for name, text in generated().files.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.replace("/usr/sbin/mount.haoperator", "/bin/true"))
    assert verify(directory) == ""
