# SPDX-License-Identifier: Apache-2.0
"""What `hactl verify` prints and exits with, for whatever the operator reports."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from haoperator.cli import client, show
from haoperator.cli.client import Failed
from haoperator.cli.comparison import printable
from haoperator.cli.verify import verify

RUNNING: dict[str, Any] = {
    "state": "running",
    "repair": False,
    "started": 1000.0,
    "ended": 0.0,
    "reason": "",
    "progress": 0.25,
    "directories": 1,
    "files": 7,
    "bytes": 2_500_000,
    "missed": 0,
    "difference_count": 0,
    "differences": [],
    "repaired": 0,
    "resync": False,
}
DONE = RUNNING | {"state": "done", "progress": 1.0, "ended": 1075.0}
CONTENT = {
    "directory": "data",
    "path": "a\nb",
    "what": "content",
    "detail": "",
    "offset": 65536,
    "length": 100,
}
MODE = {"directory": "data", "path": "", "what": "mode", "detail": "0755 here, 0700 there"}


class Operator:
    """Answers with one report after the other, and notes what it was asked to do."""

    def __init__(self, *reports: dict[str, Any]) -> None:
        self.reports = list(reports)
        self.verbs: list[str] = []
        self.refusal = ""

    async def connect(self) -> None: ...

    async def command(self, bus: None, verb: str) -> None:
        self.verbs.append(verb)
        if self.refusal:
            raise Failed(self.refusal)

    async def fetch_report(self, bus: None) -> dict[str, Any]:
        report = self.reports.pop(0)
        if report["state"] == "ctrl-c":
            raise KeyboardInterrupt
        return {"verification": report}


def answered_by(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("connect", "command", "fetch_report"):
        monkeypatch.setattr(client, name, getattr(operator, name))

    async def at_once(_: float) -> None: ...

    monkeypatch.setattr(asyncio, "sleep", at_once)


@pytest.mark.parametrize(
    ("told", "code", "line"),
    [
        (DONE, 0, "7 files in 1 directory, 2.5 MB compared in 0:01:15: both copies are equal"),
        (
            DONE | {"difference_count": 1, "differences": [MODE]},
            1,
            "1 difference; 'hactl verify --repair' sends them to the standby again",
        ),
        (
            DONE | {"repair": True, "difference_count": 2, "repaired": 2},
            0,
            "2 differences, 2 repaired",
        ),
        (
            DONE | {"repair": True, "difference_count": 2, "repaired": 1, "resync": True},
            0,
            "a resync brings over the rest",
        ),
        (
            DONE | {"repair": True, "difference_count": 2, "repaired": 1},
            1,
            "2 differences, 1 repaired",
        ),
        (DONE | {"state": "stopped", "reason": "it rains"}, 2, "stopped, because it rains"),
        (DONE | {"missed": 3}, 0, "3 names moved too often to be compared"),
        ({"state": "none"}, 2, "the replicator was restarted"),
    ],
)
def test_result_and_exit_status(
    told: dict[str, Any],
    code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    operator = Operator(RUNNING, RUNNING, RUNNING | {"progress": 0.5}, told)
    answered_by(operator, monkeypatch)
    assert verify(repair=False) == code
    assert operator.verbs == ["Verify"]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "25% compared: 7 files in 1 directory, 2.5 MB, no differences"
    assert printed[1].startswith("50% compared")
    assert any(line in each for each in printed[2:]), printed


def test_differences_are_lines_and_nothing_in_a_name_disturbs_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = DONE | {"difference_count": 9, "differences": [CONTENT, MODE]}
    operator = Operator(told)
    answered_by(operator, monkeypatch)
    assert verify(repair=True) == 1
    assert operator.verbs == ["Repair"]
    assert capsys.readouterr().out.splitlines()[:3] == [
        "data: a\\x0ab: content differs: bytes 65536 to 65635",
        "data: .: mode differs: 0755 here, 0700 there",
        "and 7 more",
    ]
    assert printable("\x1b[2J\udcff\u202e\u00e4") == "\\x1b[2J\\xff\\u202e\u00e4"


def test_refusal_is_no_difference(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    operator = Operator()
    operator.refusal = "verify runs on the primary: ask node-a"
    answered_by(operator, monkeypatch)
    assert verify(repair=False) == 2
    assert "ask node-a" in capsys.readouterr().err


def test_interrupt_says_that_the_comparison_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answered_by(Operator(RUNNING, {"state": "ctrl-c"}), monkeypatch)
    assert verify(repair=False) == 130
    assert "goes on" in capsys.readouterr().err


def test_status_shows_the_comparison_under_way_and_the_last_result() -> None:
    report = show.without_operator("node-a", takes_part=False)
    assert "verify" not in show.text(report, colour=False)
    shown = show.text(report | {"verification": RUNNING}, colour=False)
    assert "verify           25% compared" in shown
    told = DONE | {"difference_count": 1, "differences": [MODE]}
    assert "1 difference; 'hactl verify" in show.text(report | {"verification": told}, colour=False)
