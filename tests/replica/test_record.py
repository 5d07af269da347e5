# SPDX-License-Identifier: Apache-2.0
"""The data record is replaced whole and durably, or not at all."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from haoperator.core.record import DataRecord
from haoperator.replica.record import RecordStore


def test_missing_record_is_a_node_before_its_first_start(tmp_path: Path) -> None:
    assert RecordStore(tmp_path / "record.json").record == DataRecord()


def test_what_was_put_is_there_for_the_next_process(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    store = RecordStore(path)
    record = store.record.begin("a" * 16).begin("b" * 16)
    store.put(record)
    assert RecordStore(path).record == record
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["record.json"]


def test_interrupted_replacement_leaves_the_former_record(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    store = RecordStore(path)
    store.put(store.record.begin("a" * 16))
    path.with_name("record.json.new").write_text('{"half')
    again = RecordStore(path)
    assert again.record == store.record
    again.put(replace(again.record, peer_outdated=False))
    assert not RecordStore(path).record.peer_outdated


def test_order_of_the_replacement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def recorded(*arguments: object, name: str = name, real: object = real) -> object:
            calls.append(name)
            return real(*arguments)  # type: ignore[operator]

        monkeypatch.setattr(os, name, recorded)
    store = RecordStore(tmp_path / "record.json")
    store.put(store.record.begin("a" * 16))
    assert calls == ["fsync", "replace", "fsync"]


def test_copy_that_is_given_up_is_given_up_without_a_disk_too(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    store = RecordStore(home / "record.json")
    store.put(store.record.begin("a" * 16))
    outdated = replace(store.record, up_to_date=False)
    home.rename(elsewhere)
    with pytest.raises(OSError):
        store.put(outdated)
    assert store.record.up_to_date
    with pytest.raises(OSError):
        store.give_up(outdated)
    assert store.record == outdated
    elsewhere.rename(home)
    assert RecordStore(home / "record.json").record.up_to_date
    store.put(outdated)
    assert RecordStore(home / "record.json").record == outdated


def test_damaged_record_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text("{}")
    with pytest.raises(ValueError, match="data record"):
        RecordStore(tmp_path / "record.json")
