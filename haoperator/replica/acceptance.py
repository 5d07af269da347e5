# SPDX-License-Identifier: Apache-2.0
"""Whether a standby takes a primary's stream, and how. Pure: it decides and changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from haoperator.core.generation import Relation, compare
from haoperator.core.record import DataRecord
from haoperator.core.status import Role
from haoperator.replica.settings import Settings


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the standby answers. `refuse` is a word for programs, `reason` for people."""

    resync: bool = False
    partial: bool = False
    """Both know what may differ: only that is compared."""
    keep: bool = False
    """This copy lost a split brain: it is kept aside before anything of it is overwritten."""
    refuse: str = ""
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        if self.refuse:
            return {"refuse": self.refuse, "reason": self.reason}
        return {"accept": self.mode}

    @property
    def mode(self) -> str:
        """ "synced": nothing is missing. "noted": what both noted is compared. "whole": all is."""
        if not self.resync:
            return "synced"
        return "noted" if self.partial else "whole"


KNOCKED = Verdict(refuse="knock", reason="heard")


def judge(
    said: Mapping[str, Any],
    settings: Settings,
    role: Role,
    record: DataRecord,
    token: bytes,
    *,
    complete: bool,
    left_behind: bool,
) -> Verdict:
    """The answer to what a primary says. Raises KeyError, TypeError, ValueError for nonsense.

    `left_behind`: this copy was marked outdated a moment ago, so that the primary can go on
    alone. It gets the time to do that, or a standby that leaves would be in step again for
    the moment that it is still there, and the primary's writes would wait for `detect`.
    """
    if role is not Role.SECONDARY:
        return Verdict(refuse="not-standby", reason=f"{settings.node} is {role}")
    if said["directories"] != [directory.name for directory in settings.directories]:
        return Verdict(refuse="configuration", reason="the two configurations differ")
    if not complete:
        return Verdict(refuse="not-mounted", reason=f"{settings.node} has not mounted all yet")
    primarys = DataRecord.from_json(said["record"])
    relation = record.relation_to(primarys)
    if relation is Relation.DIVERGED:
        return Verdict(refuse=relation, reason="diverged: both nodes wrote without the other")
    if relation is Relation.DESCENDANT:
        return Verdict(refuse=relation, reason=f"{settings.node} has newer data")
    if left_behind and relation is Relation.EQUAL:
        return Verdict(refuse="outdated", reason=f"{settings.node} marked itself outdated")
    if compare(record.lineage, primarys.lineage) is Relation.DIVERGED:
        return Verdict(resync=True, keep=True)
    shown = bytes.fromhex(said["token"])
    missed_nothing = bool(shown) and shown == token and record.consistent
    same_base = bool(record.base) and record.base == str(said["base"])
    return Verdict(resync=not (relation is Relation.EQUAL and missed_nothing), partial=same_base)
