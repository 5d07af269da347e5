# SPDX-License-Identifier: Apache-2.0
"""The data record: what a node knows, durably, of the data that it holds.

The replicator stores it (`haoperator.replica.record`); the core decides by it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from haoperator.core.generation import CONTINUED, TAKEN_OVER, Lineage, Relation, compare


@dataclass(frozen=True, slots=True)
class DataRecord:
    """See docs/architecture.md, section 3, for what each field promises."""

    generation: str = ""
    history: tuple[str, ...] = ()
    consistent: bool = True
    up_to_date: bool = False
    last_primary: bool = False
    peer_outdated: bool = False
    base: str = ""
    origins: str = ""
    yielded_to: str = ""

    @property
    def lineage(self) -> Lineage:
        return Lineage(self.generation, self.history)

    @property
    def current(self) -> bool:
        """Whether this copy may serve: it exists, is no mixture, and nobody left it behind."""
        return bool(self.generation) and self.consistent and self.up_to_date

    @property
    def proves_last_primary(self) -> bool:
        """Whether this node wrote last and durably left its peer behind, so that
        the peer cannot hold anything newer and need not be asked."""
        return self.current and self.last_primary and self.peer_outdated

    def begin(self, generation: str) -> DataRecord:
        """The record of a period in which this node writes alone.

        A mixture does not hold all of the generation that it names: whoever does, and was not
        asked, is no ancestor of what is made of it by force.
        """
        former, origins = self.lineage, self.origins
        if not self.consistent:
            former, origins = Lineage("", former.history), origins[1:]
        lineage = former.begin(generation)
        origin = CONTINUED if self.last_primary else TAKEN_OVER
        return replace(
            self,
            generation=lineage.generation,
            history=lineage.history,
            consistent=True,
            up_to_date=True,
            last_primary=True,
            peer_outdated=True,
            origins=(origin + origins)[: len(lineage.history) + 1],
            yielded_to="",
        )

    def relation_to(self, peer: DataRecord) -> Relation:
        """How this data stands to the peer's. Once one of two diverged branches was yielded to
        the other, it is treated as the stale one; while both are, nothing is decided."""
        relation = compare(self.lineage, peer.lineage)
        if relation is Relation.DIVERGED:
            mine, theirs = self.yielded_to in peer.lineage, peer.yielded_to in self.lineage
            if mine != theirs:
                return Relation.ANCESTOR if mine else Relation.DESCENDANT
        return relation

    def went_on_beside(self, peer: DataRecord) -> bool | None:
        """Whether this diverged branch was begun by the node that had been primary until then,
        and not by a takeover; None if that is not known."""
        branch = self.lineage.since_parting(peer.lineage)
        if not branch or len(self.origins) < len(branch):
            return None
        return self.origins[len(branch) - 1] == CONTINUED

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> DataRecord:
        """Raises ValueError for anything but a whole record."""
        try:
            said = json.loads(text)
        except RecursionError as err:
            raise ValueError("not a data record: nested without end") from err
        if not isinstance(said, dict):
            raise ValueError("a data record is a JSON object")
        history = said.get("history")
        if not isinstance(history, list) or not all(isinstance(each, str) for each in history):
            raise ValueError("not a data record: no history of generations")
        try:
            record = cls(**{**said, "history": tuple(history)})
        except TypeError as err:
            raise ValueError(f"not a data record: {err}") from err
        for name, value in asdict(record).items():
            if type(value) is not type(getattr(cls(), name)):
                raise ValueError(f"not a data record: {name} is {value!r}")
        return record
