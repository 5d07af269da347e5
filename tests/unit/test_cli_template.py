# SPDX-License-Identifier: Apache-2.0
"""`hactl template`: what it prints is what `check-config` accepts."""

from __future__ import annotations

from pathlib import Path

import pytest

from haoperator.cli.__main__ import main
from tomlconfig import AppKind, load

NAMES = ("compose", "kvm", "mariadb", "nginx", "postgresql", "redis", "unit")


def hactl(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["hactl", *words])
    return main()


def test_list_says_what_each_is_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hactl(monkeypatch, "template", "list") == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _ in lines] == list(NAMES)
    assert all(summary.endswith(".") for _, summary in lines)


@pytest.mark.parametrize("name", NAMES)
def test_template_is_a_complete_configuration(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str
) -> None:
    assert hactl(monkeypatch, "template", "show", name) == 0
    file = tmp_path / "cluster.toml"
    file.write_text(capsys.readouterr().out)
    assert hactl(monkeypatch, "check-config", str(file)) == 0
    config = load(file)
    assert config.replicate and config.apps and config.witness
    assert any(checker.app == config.apps[0].name for checker in config.checkers)
    assert any(checker.on == "both" for checker in config.checkers)
    assert any(checker.on == "primary" for checker in config.checkers)
    if config.apps[0].kind is AppKind.IMAGE:
        directory = str(config.replicate[0].path)
        assert any(volume.startswith(f"{directory}:") for volume in config.apps[0].volumes)


@pytest.mark.parametrize("words", [("show",), ("show", "oracle")])
def test_unknown_template_is_answered_with_those_there_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert hactl(monkeypatch, "template", *words) == 1
    assert "compose, kvm, mariadb" in capsys.readouterr().err
