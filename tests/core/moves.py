# SPDX-License-Identifier: Apache-2.0
"""Everything that may happen next in a `World`, as a table.

A move that `disturbs` is a fault, or an administrator; explorations count those. A single path
that works again while others do not is one too. The others
are how the world goes on by itself: in any order, and with any time between them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from haoperator.core import events as on
from haoperator.core.state import HANDOVER_SECONDS, REPLICA_RETURN_SECONDS, SWAP_BACK_SECONDS
from haoperator.core.status import Phase
from tests.core.world import DETECT, NAMES, STATUS_LIVES, Node, World


@dataclass(frozen=True, slots=True)
class Move:
    """`make` returns whether it could be made; if not, nothing has changed."""

    label: str
    node: str
    disturbs: bool
    make: Callable[[World, Node], bool]

    def __str__(self) -> str:
        return f"{self.node}: {self.label}" if self.node else self.label

    def on(self, world: World) -> bool:
        return self.make(world, world.nodes[self.node or NAMES[0]])


def wait(world: World, _node: Node) -> bool:
    """Where nothing is under way, seconds pass until something is, or the next timeout is over."""
    nodes = world.nodes.values()

    def stands() -> tuple[bool, object]:
        busy = any(node.job or node.command or node.question for node in nodes)
        return busy, [(node.core and node.core.phase, node.published) for node in nodes]

    before = stands()
    if before[0]:
        return False
    for _ in range(DETECT + 1):
        world.advance(1)
        if stands() != before:
            return True
    if (timeout := _next_timeout(world)) is None:
        return False
    world.now = max(world.now, timeout - 1)  # nothing changes until then
    world.advance(1)
    return True


def _next_timeout(world: World) -> int | None:
    """When the first of the timeouts that a core waits for will be over."""
    timeouts = [
        float(node.killed_at + STATUS_LIVES)
        for node in world.nodes.values()
        if not node.operator and node.published is not None
    ]
    for core in (node.core for node in world.nodes.values()):
        if core is None:
            continue
        timeouts += [core.yields_until, core.succession.retry_at]
        if core.phase is Phase.PROMOTING:
            timeouts.append(core.since + HANDOVER_SECONDS + 1)
        if core.replica is None:
            timeouts.append(core.replica_gone + REPLICA_RETURN_SECONDS + 1)
        if core.returned_at is not None:
            timeouts.append(core.returned_at + SWAP_BACK_SECONDS)
    return min((int(timeout) for timeout in timeouts if timeout > world.now), default=None)


def _tell(event: on.Event) -> Callable[[World, Node], bool]:
    def make(world: World, node: Node) -> bool:
        if node.core is None:
            return False
        world.tell(node, event)
        return True

    return make


def _force(world: World, node: Node) -> bool:
    if node.core is None or node.core.phase.holds_role:
        return False
    world.forced = True
    world.tell(node, on.PromoteCommanded(force=True))
    return True


def _promote(world: World, node: Node) -> bool:
    """Two first starts in the moment before the nodes have heard of each other's are nobody's
    to tell apart: they count as forced."""
    if node.core is None:
        return False
    peer = world.peer(node)
    begun = peer.record.generation or (peer.core and peer.core.phase is Phase.PROMOTING)
    world.forced |= not node.record.generation and bool(begun)
    world.tell(node, on.PromoteCommanded())
    return True


def _leave(world: World, node: Node) -> bool:
    """systemctl stop ha-cluster.target."""
    if node.core is None or node.gate_unit == "asking":
        return False
    world.tell(node, on.LeaveCommanded())
    node.job = "secondary"
    return True


def _lawful(world: World) -> bool:
    return world.a_path_works or not world.assumed


def _deafen(world: World, node: Node) -> bool:
    changed, node.deaf = not node.deaf, True
    return changed and _lawful(world)


def _cut_heartbeats(world: World, _node: Node) -> bool:
    if all(node.deaf for node in world.nodes.values()):
        return False
    world.heartbeat_cut = True
    return _lawful(world)


def _cut_stream(world: World, _node: Node) -> bool:
    if world.stream_cut:
        return False
    world.cut_stream()
    return _lawful(world)


def _cut_clients(world: World, _node: Node) -> bool:
    changed, world.client_cut = world.vips and not world.client_cut, True
    return changed and _lawful(world)


def _cut_all_between(world: World, _node: Node) -> bool:
    if world.stream_cut and all(node.deaf for node in world.nodes.values()):
        return False
    world.heartbeat_cut = True
    world.cut_stream()
    return _lawful(world)


def _unplug(world: World, node: Node) -> bool:
    if not node.witness and world.stream_cut:
        return False
    node.witness = False
    world.client_cut = world.heartbeat_cut = True
    world.cut_stream()
    return True


def _lose_witness(_world: World, node: Node) -> bool:
    changed, node.witness = node.witness, False
    return changed


def _heal_heartbeat(world: World, node: Node) -> bool:
    changed, node.deaf = node.deaf, False
    return changed


def _heal_stream(world: World, _node: Node) -> bool:
    changed, world.stream_cut = world.stream_cut, False
    return changed


def _heal_network(world: World, _node: Node) -> bool:
    nodes = world.nodes.values()
    whole = not (world.stream_cut or world.client_cut or world.heartbeat_cut)
    if whole and all(node.witness for node in nodes):
        return False
    world.heartbeat_cut = world.stream_cut = world.client_cut = False
    for node in nodes:
        node.witness = True
    return True


def _each(label: str, disturbs: bool, make: Callable[[World, Node], bool]) -> tuple[Move, ...]:
    return tuple(Move(label, name, disturbs, make) for name in NAMES)


def _one(label: str, disturbs: bool, make: Callable[[World, Node], bool]) -> tuple[Move, ...]:
    return (Move(label, "", disturbs, make),)


USUAL: tuple[Move, ...] = (
    *_each("hears the newest heartbeat", False, World.deliver),
    *_each("systemd carries on", False, World.run_job),
    *_each("the replicator does as it is told", False, World.run_command),
    *_each(
        "the replicator is primary, its stream stands at once",
        False,
        lambda world, node: world.run_command(node, at_once=True),
    ),
    *_each("the arbiter answers", False, World.ask_arbiter),
    *_each("its stream to the standby begins", False, World.connect),
    *_each("its resync is finished", False, World.finish_resync),
    *_one("a second passes", False, World.pass_time),
    *_one("time passes", False, wait),
)

RECOVERIES: tuple[Move, ...] = (
    *_each("boots", False, World.boot),
    *_each("the operator is started again", False, World.start_operator),
    *_each("the replicator is started again", False, World.start_replicator),
    *_one("the network is whole again", False, _heal_network),
)

FAULTS: tuple[Move, ...] = (
    *_each("loses its power", True, World.crash),
    *_each("the operator is killed", True, World.kill_operator),
    *_each("the replicator is killed", True, World.kill_replicator),
    *_each("heartbeats do not get here any more", True, _deafen),
    *_one("all heartbeats are cut", True, _cut_heartbeats),
    *_one("the stream is cut", True, _cut_stream),
    *_one("the clients' network is cut", True, _cut_clients),
    *_one("all paths between the nodes are cut", True, _cut_all_between),
    *_each("is unplugged", True, _unplug),
    *_each("loses the witness", True, _lose_witness),
    *_each("heartbeats get here again", True, _heal_heartbeat),
    *_one("the stream is possible again", True, _heal_stream),
    *_each("hears a heartbeat that was late", True, World.deliver_late),
    *_each(
        "the arbiter is asked, its answer is lost",
        True,
        lambda world, node: world.ask_arbiter(node, answer_lost=True),
    ),
    *_each(
        "hands over, the answer is lost",
        True,
        lambda world, node: world.run_job(node, answer_lost=True),
    ),
    *_each(
        "its stream is accepted, the answer is lost",
        True,
        lambda world, node: world.connect(node, answer_lost=True),
    ),
    *_each(
        "its resync is finished, the answer is lost",
        True,
        lambda world, node: world.finish_resync(node, lost="answer"),
    ),
    *_each(
        "its resync is finished, the last word is lost",
        True,
        lambda world, node: world.finish_resync(node, lost="done"),
    ),
)

COMMANDS: tuple[Move, ...] = (
    *_each("hactl swap", True, _tell(on.SwapCommanded())),
    *_each("hactl promote", True, _promote),
    *_each("an application gives up", True, _tell(on.AppGaveUp("ha-app@web.service"))),
    *_each("systemctl stop ha-cluster.target", True, _leave),
    *_each("systemctl isolate ha-primary.target", True, lambda w, n: w.isolate(n, "primary")),
    *_each("systemctl isolate ha-secondary.target", True, lambda w, n: w.isolate(n, "secondary")),
    *_each("lacks what a takeover needs", True, _tell(on.ReadinessChanged("a full disk"))),
    *_each("has what a takeover needs", True, _tell(on.ReadinessChanged(""))),
    *_each("hactl maintenance on", True, _tell(on.MaintenanceCommanded(True))),
    *_each("hactl maintenance off", True, _tell(on.MaintenanceCommanded(False))),
)

FORCE: tuple[Move, ...] = (
    *_each("hactl promote --force", True, _force),
    *_each("hactl splitbrain yield", True, _tell(on.YieldCommanded())),
)

MOVES: tuple[Move, ...] = (*USUAL, *RECOVERIES, *FAULTS, *COMMANDS, *FORCE)
