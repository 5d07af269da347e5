# SPDX-License-Identifier: Apache-2.0
"""`hactl promote --force` says what it leaves out before it does anything."""

from __future__ import annotations

from typing import Any

from haoperator.cli.missing import missing


def report(*, consistent: bool, up_to_date: bool, **replica: Any) -> dict[str, Any]:
    shop = {
        "name": "shop",
        "resync_compared_bytes": 30_000_000,
        "out_of_sync_bytes": 70_000_000,
        "snapshot_taken_at": None,
    }
    record = {"generation": "a" * 16, "consistent": consistent, "up_to_date": up_to_date}
    return {"record": record, "peer": {"name": "node-a"}, "replication": [shop | replica]}


def test_nothing_is_missing_of_a_current_copy() -> None:
    assert missing(report(consistent=True, up_to_date=True)) == []


def test_stale_copy_lacks_what_the_peer_wrote() -> None:
    (sentence,) = missing(report(consistent=True, up_to_date=False))
    assert "node-a went on without this node" in sentence


def test_mixture_is_told_with_how_much_was_not_compared() -> None:
    sentences = missing(report(consistent=False, up_to_date=False))
    assert "a mixture" in sentences[0]
    assert sentences[1] == "shop: 70.0 MB of 100.0 MB were not compared"


def test_mixture_without_known_progress_says_that() -> None:
    unknown = report(
        consistent=False, up_to_date=False, resync_compared_bytes=0, out_of_sync_bytes=0
    )
    assert missing(unknown)[1] == "shop: how much is missing is not known here"


def test_snapshot_is_what_it_goes_back_to() -> None:
    (sentence,) = missing(report(consistent=False, up_to_date=False, snapshot_taken_at=1e9))
    assert "goes back to the state before it (snapshot of 2001-" in sentence


def test_node_without_an_operator_tells_nothing() -> None:
    assert missing({"peer": {"name": ""}, "replication": []}) == []
