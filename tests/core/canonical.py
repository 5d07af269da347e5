# SPDX-License-Identifier: Apache-2.0
"""When two worlds are the same: everything that can still make a difference, and nothing else.

Times become ages, up to the age from which nothing changes any more; of a timeout of many
seconds only whether it is over, because the move that lets time pass goes on until it is;
generations are counted in the order in which they appear, so that neither the seeds nor the
path that led here matter; a history counts as far as it names a generation that some record is
in; reasons, which are for people, are left out.
"""

from __future__ import annotations

from collections.abc import Iterator

from haoperator.core.record import DataRecord
from haoperator.core.state import (
    HANDOVER_SECONDS,
    REPLICA_RETURN_SECONDS,
    SWAP_BACK_SECONDS,
    State,
)
from haoperator.core.status import Phase, Status, Stream
from tests.core.world import DETECT, STATUS_LIVES, Node, World

Key = int


class _Naming:
    """Generations by the order in which they appear in one world."""

    __slots__ = ("alive", "names", "now", "records", "statuses")

    def __init__(self, world: World) -> None:
        self.now = world.now
        self.alive = {record.generation for record in _records(world)}
        self.names: dict[str, int] = {"": 0}
        self.records: dict[int, object] = {}
        self.statuses: dict[int, object] = {}

    def generation(self, name: str) -> int:
        return self.names.setdefault(name, len(self.names))

    def record(self, record: DataRecord) -> object:
        known = self.records.get(id(record))
        if known is None:
            flags = (
                record.consistent
                + 2 * record.up_to_date
                + 4 * record.last_primary
                + 8 * record.peer_outdated
            )
            # With how the generation was begun that came after it: all that a split brain asks.
            history = tuple(
                [
                    (self.generation(former), record.origins[at : at + 1])
                    for at, former in enumerate(record.history)
                    if former in self.alive
                ]
            )
            known = self.records[id(record)] = (
                self.generation(record.generation),
                flags,
                history,
                self.generation(record.yielded_to),
            )
        return known

    def status(self, status: Status | None) -> object:
        if status is None:
            return None
        known = self.statuses.get(id(status))
        if known is None:
            flags = (
                status.promotable
                + 2 * status.able
                + 4 * status.healthy
                + 8 * status.asks_role
                + 16 * status.yields
                + 32 * status.defers
                + 64 * status.maintenance.on
            )
            known = self.statuses[id(status)] = (
                status.phase,
                self.record(status.record),
                status.stream,
                flags,
                self.generation(status.asks_outdate),
                self.generation(status.outdated_for),
                status.maintenance.count,
            )
        return known

    def core(self, core: State | None, published: Status | None) -> object:
        if core is None:
            return None
        now, replica, told = self.now, core.replica, core.succession
        return (
            core.phase,
            core.gate,
            replica
            and (
                replica.role,
                replica.stream,
                self.record(replica.record),
                min(now - int(replica.heard), DETECT),
            ),
            self.record(core.record),
            min(now - int(core.held_since), 1) if core.stream is Stream.HELD else 0,
            min(now - int(core.replica_since), DETECT) if replica else 0,
            0 if replica else now - core.replica_gone > REPLICA_RETURN_SECONDS,
            core.phase is Phase.PROMOTING and now - core.since > HANDOVER_SECONDS,
            core.contact,
            self.status(core.peer),
            core.witness,
            core.probe,
            (
                core.saw_synced,
                core.pending,
                core.forced,
                core.gave_up_at is None,
                told.asked,
                told.trouble == "",
                told.to_disclaim,
                core.yields_branch,
                core.joins,
                core.not_ready == "",
            ),
            self.generation(told.generation),
            told.heir,
            max(0, int(told.retry_at) - now),
            (core.maintenance.count, core.maintenance.on),
            None if core.returned_at is None else now - core.returned_at >= SWAP_BACK_SECONDS,
            core.yields,
            self.generation(core.outdated_for),
            self.generation(core.outdating),
            self.generation(core.next_generation),
            None if core.published is published else self.status(core.published),
        )

    def command(self, node: Node) -> object:
        command = node.command
        if command is None:
            return None
        name = self.generation(getattr(command, "generation", ""))
        late = self.now > node.command_at
        forced = getattr(command, "force", False)
        return (type(command).__name__, name, forced, late, node.moved)

    def node(self, node: Node) -> object:
        question = node.question
        return (
            self.record(node.record),
            (node.up, node.operator, node.replicator, node.deaf, node.silent, node.witness),
            self.core(node.core, node.published),
            node.role,
            node.stream,
            min(self.now - node.heard, DETECT),
            self.command(node),
            node.gate_unit,
            node.job,
            self.status(node.published),
            min(self.now - node.beat, DETECT),
            0 if node.operator else min(self.now - node.killed_at, STATUS_LIVES),
            self.status(node.received),
            tuple([self.status(status) for status in node.wire]),
            question and (type(question).__name__, self.generation(question.generation)),
            (node.maintenance.count, node.maintenance.on),
        )


def _records(world: World) -> Iterator[DataRecord]:
    for node in world.nodes.values():
        yield node.record
        statuses = [node.published, node.received, *node.wire]
        if (core := node.core) is not None:
            yield core.record
            if core.replica is not None:
                yield core.replica.record
            statuses += [core.peer, core.published]
        for status in statuses:
            if status is not None:
                yield status.record


def key(world: World) -> Key:
    """64 bits: of 10 million different worlds, two are mistaken for one another with a
    probability of 3 in a million."""
    naming = _Naming(world)
    a, b = world.nodes.values()
    tokens = (a.token != 0, b.token != 0, a.token == b.token)
    parts = (
        naming.node(a),
        naming.node(b),
        tokens,
        (world.client_cut, world.stream_cut, world.forced),
        frozenset(_signature(world, write) for write in a.writes | b.writes),
        tuple(
            sorted(
                (naming.names[generation], heir)
                for generation, heir in world.heirs.items()
                if generation in naming.names
            )
        ),
    )
    return hash(parts)


def _signature(world: World, write: int) -> int:
    a, b = world.nodes.values()
    return (
        (write in a.writes)
        + 2 * (write in b.writes)
        + 4 * (write in a.in_flight)
        + 8 * (write in b.in_flight)
        + 16 * (write in world.acknowledged)
    )


_EVERYWHERE = 1 + 2 + 16


def write_everywhere(world: World) -> None:
    """Clients write whenever they can, and what differs in nothing is kept once: the worst
    that can happen to a write happens to one of these."""
    kept: dict[int, int] = {}
    a, b = world.nodes.values()
    for write in sorted(a.writes | b.writes):
        kept.setdefault(_signature(world, write), write)
    for node in (a, b):
        if (
            node.stream is not Stream.SYNCED
            and not _has_own(world, node, kept)
            and world.write(node)
        ):
            write = world.next_write - 1
            kept[_signature(world, write)] = write
    kept.pop(_EVERYWHERE, None)
    alive = frozenset(kept.values())
    for node in (a, b):
        if not node.writes <= alive:
            node.writes &= alive
        if not node.in_flight <= alive:
            node.in_flight &= alive
    if not world.acknowledged <= alive:
        world.acknowledged &= alive


def _has_own(world: World, node: Node, kept: dict[int, int]) -> bool:
    first = node is next(iter(world.nodes.values()))
    here, in_flight = (1, 4) if first else (2, 8)
    return (here + 16 if node.acknowledges else here + in_flight) in kept
