# SPDX-License-Identifier: Apache-2.0
"""Maintenance is remembered over a reboot, and doubt means: hands off. Having joined is
remembered over a restart of the operator."""

from __future__ import annotations

from pathlib import Path

import pytest

from haoperator.core.status import Maintenance
from haoperator.operator.memory import joins, leaves, recall, remember


def test_what_was_remembered_is_recalled(tmp_path: Path) -> None:
    path = tmp_path / "maintenance.json"
    assert recall(path) == Maintenance()
    remember(Maintenance(7, True), path)
    assert recall(path) == Maintenance(7, True)
    remember(Maintenance(8, False), path)
    assert recall(path) == Maintenance(8, False)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"count": 1}', '{"count": "1", "on": true}'])
def test_what_cannot_be_read_means_that_nothing_moves(tmp_path: Path, text: str) -> None:
    path = tmp_path / "maintenance.json"
    path.write_text(text)
    assert recall(path).on


def test_node_joins_once_until_it_leaves(tmp_path: Path) -> None:
    path = tmp_path / "run/joined"
    assert [joins(path), joins(path)] == [True, False]
    leaves(path)
    leaves(path)
    assert joins(path)
