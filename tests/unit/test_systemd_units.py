# SPDX-License-Identifier: Apache-2.0
"""Every unit, packaged or generated, as systemd reads it, and what must hold among them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

import tomlconfig
from haoperator.core.state import HANDOVER_SECONDS
from haoperator.replica.flushing import FLUSH_SECONDS
from haoperator.replica.primary import HANDOVER_MS
from haoperator.systemd import generator, names
from haoperator.systemd.texts import STOP_MARGIN_SECONDS
from tomlconfig.rules import STOPS_AT_MOST

UNITS = Path(__file__).parents[2] / "units"
EXAMPLES = sorted(Path(tomlconfig.__file__).parent.glob("*/*.toml"))


def settings(unit: str) -> dict[str, list[str]]:
    """`Section.Key` → its values, in the order of the file."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in (UNITS / unit).read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, value = line.split("=", 1)
            found.setdefault(f"{section}.{key}", []).append(value)
    return found


def words(unit: str, key: str) -> set[str]:
    return {word for value in settings(unit).get(key, []) for word in value.split()}


def verify(directory: Path) -> str:
    """What `systemd-analyze verify` has to say against the units below `directory`."""
    instances = [
        path.name for path in directory.glob("*.wants/*") if "@" in path.name and path.is_symlink()
    ]
    static = [path.name for path in directory.iterdir() if path.is_file() and "@." not in path.name]
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *sorted({*static, *instances})],
        env={**os.environ, "SYSTEMD_UNIT_PATH": f"{directory}:"},
        capture_output=True,
        text=True,
    )
    return done.stderr if done.returncode or str(directory) in done.stderr else ""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The packaged units, with `true` in the place of programs that are not installed here."""
    target = tmp_path / "units"
    target.mkdir()
    for path in UNITS.iterdir():
        text = re.sub(r"/usr/lib/haoperator/[a-z-]+", "/bin/true", path.read_text())
        (target / path.name).write_text(text)
    return target


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_systemd_finds_nothing_wrong(directory: Path, tmp_path: Path, example: Path) -> None:
    generator.generate(example, tmp_path / "accepted.toml", "node-a", directory)
    assert verify(directory) == ""


def test_systemd_finds_nothing_wrong_with_the_error_unit(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "cluster.toml").write_text("[cluster\n")
    generator.generate(tmp_path / "cluster.toml", tmp_path / "a.toml", "node-a", directory)
    assert verify(directory) == ""


def test_verification_would_find_something(directory: Path) -> None:
    with (directory / "haoperator.service").open("a") as unit:
        unit.write("NoSuchSetting=yes\n")
    assert "NoSuchSetting" in verify(directory)


@pytest.mark.parametrize("path", sorted(UNITS.iterdir()), ids=lambda path: path.name)
def test_unit_is_described_and_documented(path: Path) -> None:
    assert path.read_text().startswith("# SPDX-License-Identifier: Apache-2.0\n")
    found = settings(path.name)
    assert found["Unit.Description"][0].startswith("High availability: ")
    assert found["Unit.Documentation"]


def test_everything_leaves_with_the_cluster() -> None:
    for unit in (*names.DAEMONS, names.PRIMARY, names.SECONDARY):
        assert names.CLUSTER in words(unit, "Unit.PartOf"), unit
    for unit in names.DAEMONS:
        # So that a stop of the target returns when they have stopped.
        assert names.CLUSTER in words(unit, "Unit.After"), unit


def test_everything_of_the_primary_is_behind_the_gate() -> None:
    # A checker may belong to both roles: test_systemd_texts.py.
    for template in ("ha-vip@.service", "ha-app@.service"):
        assert words(template, "Unit.PartOf") == {names.PRIMARY}
        assert words(template, "Unit.BindsTo") == {names.PROMOTE}
        assert names.PROMOTE in words(template, "Unit.After")


def test_nothing_is_bound_to_a_daemon() -> None:
    for path in UNITS.iterdir():
        bound = set()
        for key in ("Requires", "BindsTo", "Requisite", "PartOf", "StopPropagatedFrom"):
            bound |= words(path.name, f"Unit.{key}")
        assert not bound & set(names.DAEMONS), path.name


def test_roles_exclude_each_other_and_a_refusal_brings_the_standby_back() -> None:
    assert words(names.PRIMARY, "Unit.Conflicts") == {names.SECONDARY}
    assert words(names.SECONDARY, "Unit.Conflicts") == {names.PRIMARY}
    assert words(names.PRIMARY, "Unit.OnFailure") == {names.SECONDARY}
    assert names.PROMOTE in words(names.PRIMARY, "Unit.Requires")
    assert names.PROMOTE in words(names.SECONDARY, "Unit.After")


def test_replicator_has_no_mount_namespace_of_its_own() -> None:
    forbidden = re.compile(r"Private|Protect|ReadOnly|ReadWrite|Inaccessible|Bind|Root|Mount|Temp")
    keys = [key.removeprefix("Service.") for key in settings(names.REPLICATOR)]
    assert not [key for key in keys if forbidden.match(key)]


def test_gate_gives_up_before_systemd_does() -> None:
    """busctl's own limits are shorter, so that a reason is logged and not only a timeout."""
    found = settings(names.PROMOTE)

    def seconds(text: str) -> list[int]:
        return [int(number) for number in re.findall(r"--timeout=(\d+)s", text)]

    start, stop = seconds(found["Service.ExecStart"][0]), seconds(found["Service.ExecStop"][0])
    post = seconds(found["Service.ExecStopPost"][0])
    assert sum(start) < int(found["Service.TimeoutStartSec"][0].removesuffix("s"))
    assert sum(stop + post) < int(found["Service.TimeoutStopSec"][0].removesuffix("s"))
    # The replicator waits for what the kernel holds back, and for the peer, in BecomeSecondary.
    assert stop[0] > FLUSH_SECONDS + HANDOVER_MS / 1000


def test_peer_waits_for_a_hand_over_longer_than_an_application_may_take_to_stop() -> None:
    (stop,) = settings("ha-app@.service")["Service.TimeoutStopSec"]
    (timeout,) = re.findall(r"--timeout=(\d+)s", settings(names.PROMOTE)["Service.ExecStart"][0])
    # Once for the program, once for ExecStopPost=, and what the gate takes to close.
    gate = settings(names.PROMOTE)["Service.TimeoutStopSec"][0]
    assert 2 * int(stop.removesuffix("s")) + int(gate.removesuffix("s")) < int(timeout)


def test_hand_over_has_time_for_the_applications_that_the_configuration_allows() -> None:
    (timeout,) = re.findall(r"--timeout=(\d+)s", settings(names.PROMOTE)["Service.ExecStart"][0])
    assert STOPS_AT_MOST + STOP_MARGIN_SECONDS < HANDOVER_SECONDS < int(timeout)


def test_units_are_ini_files_without_surprises() -> None:
    for path in UNITS.iterdir():
        parser = RawConfigParser(strict=False)
        parser.read_string(path.read_text())
        assert "Unit" in parser.sections()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_hardened_daemons_stay_hardened() -> None:
    """`systemd-analyze security`: the exposure of what faces the network, at most this."""
    for unit, limit in (
        *((names.HEARTBEAT, 30), ("ha-vip@.service", 30)),
        (names.GUARD, 30),
    ):
        done = subprocess.run(
            ["systemd-analyze", "security", "--offline=yes", f"--threshold={limit}"]
            + [str(UNITS / unit)],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-400:] + done.stderr
