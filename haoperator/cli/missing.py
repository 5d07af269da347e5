# SPDX-License-Identifier: Apache-2.0
"""What a forced promotion of this node would leave out, as far as this node can tell."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any


def missing(report: dict[str, Any]) -> list[str]:
    """Sentences for an administrator, from a report; empty where nothing is known to be missing."""
    record, peer = report.get("record"), report["peer"]["name"]
    if record is None or not record["generation"]:
        return []
    if not record["consistent"]:
        return list(_mixture(report["replication"], peer))
    if not record["up_to_date"]:
        return [f"{peer} went on without this node: what it wrote since then is missing here"]
    return []


def _mixture(replication: list[dict[str, Any]], peer: str) -> Iterator[str]:
    taken: list[Any] = [replica.get("snapshot_taken_at") for replica in replication]
    if taken and all(taken):
        then = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(min(taken)))
        yield (
            f"a resynchronisation from {peer} did not finish: the data goes back to the state "
            f"before it (snapshot of {then}); what {peer} wrote without this node is missing"
        )
        return
    yield (
        f"a resynchronisation from {peer} did not finish: the data here is a mixture of old and "
        "new, and an application may find it damaged"
    )
    for replica in replication:
        total = replica["resync_compared_bytes"] + replica["out_of_sync_bytes"]
        if total:
            left = replica["out_of_sync_bytes"]
            yield f"{replica['name']}: {_megabytes(left)} of {_megabytes(total)} were not compared"
        else:
            yield f"{replica['name']}: how much is missing is not known here"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
