# SPDX-License-Identifier: Apache-2.0
"""The generator: what it leaves in its directory for a right, a wrong and no file."""

from __future__ import annotations

import os
import sys
from itertools import count
from pathlib import Path

import pytest

import tomlconfig
from haoperator.systemd import generator, texts

_RUNS = count()
EXAMPLE = Path(tomlconfig.__file__).parent / "examples" / "two-links.toml"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.toml"
    path.write_bytes(EXAMPLE.read_bytes())
    return path


def run(source: Path, node: str = "node-a") -> set[str]:
    """Runs the generator in a fresh directory, as systemd does; the names of what it left."""
    directory = source.parent / f"normal-{next(_RUNS)}"
    generator.generate(source, source.parent / "run" / "accepted.toml", node, directory)
    return {
        str(path.relative_to(directory))
        for path in directory.glob("**/*")
        if path.is_symlink() or path.is_file()
    }


ERROR = {"ha-config-error.service", "ha-cluster.target.wants/ha-config-error.service"}


def test_right_file_makes_units_and_leaves_no_temporary_files(source: Path) -> None:
    names = run(source)
    assert "srv-shop-database.mount" in names
    assert "ha-primary.target.wants/ha-app@web.service" in names
    assert not names & ERROR
    assert not [name for name in names if name.endswith(".new")]


def test_nothing_is_made_without_a_configuration(tmp_path: Path) -> None:
    assert run(tmp_path / "cluster.toml") == set()


def test_wrong_file_makes_nothing_but_the_unit_that_says_so(source: Path) -> None:
    source.write_text("[cluster]\nnam = 1\n")
    assert run(source) == ERROR


def test_host_that_is_no_node_is_told_so(source: Path) -> None:
    directory = source.parent / "out"
    generator.generate(source, source.parent / "accepted.toml", "elsewhere", directory)
    text = (directory / "ha-config-error.service").read_text()
    assert "this host, elsewhere, is not a node of the cluster (its nodes: node-a and node-b)" in (
        text
    )
    assert not (directory / "srv-shop-database.mount").exists()


def test_error_in_a_later_file_leaves_the_units_of_the_accepted_one(source: Path) -> None:
    right = run(source)
    source.write_text("[cluster\n")
    assert run(source) == right | ERROR
    source.unlink()
    assert run(source) == set()
    source.write_text("[cluster\n")
    assert run(source) == ERROR


def test_unforeseen_failure_becomes_the_unit_that_says_so(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(texts, "for_config", fail)
    assert run(source) == ERROR


def test_main_takes_the_directories_of_systemd(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.write_text(source.read_text().replace("node-a", os.uname().nodename.split(".")[0]))
    monkeypatch.setattr(generator, "CONFIGURATION", str(source))
    monkeypatch.setattr(generator, "ACCEPTED", tmp_path / "accepted.toml")
    directories = [str(tmp_path / name) for name in ("normal", "early", "late")]
    monkeypatch.setattr(sys, "argv", ["haoperator-generator", *directories])
    assert generator.main() == 0
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["normal"]


def test_main_without_a_directory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["haoperator-generator"])
    assert generator.main() == 2
