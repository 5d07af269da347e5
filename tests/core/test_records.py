# SPDX-License-Identifier: Apache-2.0
"""Generations, records and what nodes publish: small facts that everything rests on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haoperator.core.generation import HISTORY_LIMIT, Lineage, Relation, compare
from haoperator.core.record import DataRecord
from haoperator.core.status import Phase, Status, Stream

PACKET_LIMIT = 1200
"""What fits into a heartbeat, by its contract (docs/architecture.md, section 4)."""


def lineage(*generations: str) -> Lineage:
    """Oldest first."""
    line = Lineage()
    for generation in generations:
        line = line.begin(generation)
    return line


@pytest.mark.parametrize(
    ("mine", "peer", "relation"),
    [
        (lineage(), lineage(), Relation.EQUAL),
        (lineage("1"), lineage("1"), Relation.EQUAL),
        (lineage(), lineage("1"), Relation.ANCESTOR),
        (lineage("1"), lineage("1", "2", "3"), Relation.ANCESTOR),
        (lineage("1", "2"), lineage("1"), Relation.DESCENDANT),
        (lineage("1", "2"), lineage("1", "3"), Relation.DIVERGED),
        (lineage("1"), lineage("2"), Relation.DIVERGED),
    ],
)
def test_two_lineages_tell_which_copy_is_newer(
    mine: Lineage, peer: Lineage, relation: Relation
) -> None:
    assert compare(mine, peer) is relation


@given(st.integers(1, HISTORY_LIMIT), st.integers(0, 5))
def test_a_lineage_is_a_descendant_of_all_that_it_remembers(steps: int, old: int) -> None:
    line = lineage(*map(str, range(old + steps)))
    former = lineage(*map(str, range(old))) if old else Lineage()
    assert compare(line, former) is Relation.DESCENDANT
    assert compare(former, line) is Relation.ANCESTOR


def test_a_peer_that_was_away_too_long_looks_diverged_and_is_not_overwritten() -> None:
    line = lineage(*map(str, range(HISTORY_LIMIT + 2)))
    assert compare(lineage("0"), line) is Relation.DIVERGED


def test_longest_status_fits_into_a_heartbeat_and_reads_back() -> None:
    record = DataRecord()
    for number in range(HISTORY_LIMIT + 5):
        record = record.begin(f"{number:016x}")
    record = replace(record, yielded_to="f" * 16, up_to_date=False, consistent=False)
    status = Status(
        node="node-with-a-name-of-quite-some-length",
        phase=Phase.PROMOTING,
        record=record,
        stream=Stream.DISCONNECTED,
        would_begin="f" * 16,
        asks_outdate="f" * 16,
        outdated_for="f" * 16,
        promotable=False,
        able=False,
        healthy=False,
    )
    text = status.to_json()
    assert len(text) <= PACKET_LIMIT
    assert Status.from_json(text) == status


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"node": 3}', '{"node": "a", "phase": "x"}'])
def test_rubbish_is_no_status(text: str) -> None:
    with pytest.raises(ValueError):
        Status.from_json(text)


def test_unknown_fields_of_a_newer_version_are_passed_over() -> None:
    status = Status("node-a", record=DataRecord().begin("1" * 16))
    newer = status.to_json()[:-1] + ',"colour":"blue"}'
    assert Status.from_json(newer) == status


def test_only_who_left_its_peer_behind_proves_that_it_was_the_last_primary() -> None:
    record = DataRecord().begin("1" * 16)
    assert record.proves_last_primary
    assert not DataRecord(generation="1" * 16, up_to_date=True).proves_last_primary
