# SPDX-License-Identifier: Apache-2.0
"""Generations: which of two copies of the data is newer, without any clock.

A generation begins whenever a node starts to write without its peer. A lineage
is a generation with those before it, so that two lineages tell what happened:
one copy contains the other, or both were written independently.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

HISTORY_LIMIT = 31
"""Former generations that a node remembers. A peer that was away for longer
than so many of them looks diverged, which stops it instead of overwriting it."""


CONTINUED, TAKEN_OVER = "c", "t"
"""How a generation was begun (`DataRecord.origins`): by the node that had written last, which
went on, or by the other one."""


class Relation(StrEnum):
    """How my lineage stands to the peer's."""

    EQUAL = "equal"
    ANCESTOR = "ancestor"
    """Mine is an ancestor of the peer's: this copy is stale."""
    DESCENDANT = "descendant"
    """The peer's is an ancestor of mine: the peer's copy is stale."""
    DIVERGED = "diverged"
    """Both wrote without the other: split brain."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """A generation and the ones before it, newest first. `""` is before the first start."""

    generation: str = ""
    history: tuple[str, ...] = ()

    def begin(self, generation: str) -> Lineage:
        """The lineage of the period that starts now, as a child of this one."""
        former = (self.generation, *self.history) if self.generation else self.history
        return Lineage(generation, former[:HISTORY_LIMIT])

    def __contains__(self, generation: str) -> bool:
        return generation != "" and generation in (self.generation, *self.history)

    def since_parting(self, other: Lineage) -> tuple[str, ...]:
        """The generations that this has and `other` has not, newest first; empty where no
        common ancestor is remembered."""
        line = (self.generation, *self.history)
        for at, generation in enumerate(line):
            if generation in other:
                return line[:at]
        return ()


def compare(mine: Lineage, peer: Lineage) -> Relation:
    """Tell how `mine` stands to `peer`. An empty lineage is an ancestor of every other."""
    if mine.generation == peer.generation:
        return Relation.EQUAL
    if not mine.generation or mine.generation in peer.history:
        return Relation.ANCESTOR
    if not peer.generation or peer.generation in mine.history:
        return Relation.DESCENDANT
    return Relation.DIVERGED
