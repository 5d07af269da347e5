# SPDX-License-Identifier: Apache-2.0
"""Two shipped cores in a hostile little world: the model that tests explore.

A node is its core, a replicator (role, stream, durable record, the set of writes it
holds), and a gate unit. Whatever takes time in reality is a separate move here: a
status on its way, a command to the replicator, a systemd job. The network loses and
delays, nodes crash and come back, paths are cut.

What is *not* modelled is what the configuration rules out, and both are documented:
a node is declared silent only if nothing of it was heard for `detect`, with the
witness's answer newer than the cut; and if both nodes reach the witness, at least one
path between them works: heartbeat, stream, or the clients' network, on which the standby
finds the virtual IP of a primary that lives. With an arbiter no path needs to work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from haoperator.core import effects as do
from haoperator.core import events as on
from haoperator.core.generation import Relation, compare
from haoperator.core.record import DataRecord
from haoperator.core.state import Gate, Policy, Shown, State, shown
from haoperator.core.status import Maintenance, Phase, Role, Status, Stream
from haoperator.core.step import step

NAMES = ("node-a", "node-b")
DETECT = 2


@dataclass
class Node:
    """One node. `record`, `writes` and `maintenance` survive a crash, the rest does not."""

    name: str
    boots: int = 0
    up: bool = False
    operator: bool = False
    core: State | None = None
    role: Role = Role.SECONDARY
    stream: Stream = Stream.DISCONNECTED
    heard: float = 0.0
    beat: float = 0.0
    record: DataRecord = field(default_factory=DataRecord)
    writes: frozenset[int] = frozenset()
    kept: frozenset[int] = frozenset()
    """Of branches that were yielded: set aside before the first of it was overwritten."""
    in_flight: frozenset[int] = frozenset()
    """Written here, not acknowledged: the peer was not known to have them."""
    command: do.Effect | None = None
    command_at: float = 0.0
    gate_unit: str = "inactive"
    jobs: list[str] = field(default_factory=list)
    published: Status | None = None
    witness: bool = True
    """Whether it reaches the witness, or the arbiter where there is one."""
    question: do.Claim | do.Disclaim | None = None
    maintenance: Maintenance = field(default_factory=Maintenance)

    @property
    def acknowledges(self) -> bool:
        """Whether a write that an application makes here now would be acknowledged."""
        alone = self.stream in (Stream.ALONE, Stream.RESYNC, Stream.SYNCED)
        return self.up and self.role is Role.PRIMARY and alone


def _shows(core: State) -> str:
    state, transition = shown(core)
    return str(transition or state)


def _looks(core: State) -> str:
    return f"{_shows(core)} ({core.reason})"


class World:
    """Both nodes, the paths between them, and what clients were told."""

    def __init__(
        self,
        preferred: str | None = None,
        arbiter: bool = False,
        vips: bool = False,
        former_primary_wins: bool = False,
    ) -> None:
        self.preferred = preferred
        self.arbiter = arbiter
        self.vips = vips
        self.former_primary_wins = former_primary_wins
        self.heirs: dict[str, str] = {}
        self.client_cut = False
        self.forced = False
        """Somebody forced a promotion: all promises are off until the nodes have met again."""
        self.refusals: list[str] = []
        self.edges: set[tuple[str, str]] = set()
        """Which state was seen to follow which."""
        self.now = 0.0
        self.since = 0.0
        """When the story begins, which counts from there."""
        self.nodes = {name: Node(name) for name in NAMES}
        self.heartbeat_cut = False
        self.stream_cut = False
        self.acknowledged: frozenset[int] = frozenset()
        self.next_write = 1
        self.story: list[str] = []

    # -- helpers

    def peer(self, node: Node) -> Node:
        return self.nodes[NAMES[1 - NAMES.index(node.name)]]

    def tell(self, node: Node, event: on.Event) -> None:
        """Let one core take one step and note what it wants."""
        if not node.operator or node.core is None:
            return
        before, was = _looks(node.core), _shows(node.core)
        node.core, effects = step(node.core, event, self.now)
        self.edges.add((was, _shows(node.core)))
        if _looks(node.core) != before:
            self.story.append(f"{self.now - self.since:8.1f} {node.name}: {_looks(node.core)}")
        for effect in effects:
            self._want(node, effect)

    def _want(self, node: Node, effect: do.Effect) -> None:
        match effect:
            case do.Publish(status):
                node.published = status
            case do.StartPrimary():
                node.jobs = ["primary"]
            case do.StartSecondary():
                node.jobs = ["secondary"]
            case do.OpenGate():
                node.gate_unit = "active"
            case do.RefuseGate():
                node.gate_unit = "inactive"
                node.jobs = ["secondary"]
            case do.BecomePrimary() | do.BecomeSecondary() | do.ContinueAlone():
                self._command(node, effect)
            case do.MarkOutdated() | do.YieldBranch():
                self._command(node, effect)
            case do.Claim() | do.Disclaim():
                assert node.question is None, f"{node.name}: a second question to the arbiter"
                node.question = effect
            case do.Refuse(reason):
                self.refusals.append(reason)
            case do.KeepMaintenance(maintenance):
                node.maintenance = maintenance
            case _:
                pass

    def _command(self, node: Node, effect: do.Effect) -> None:
        assert node.command is None, f"{node.name}: a second command to the replicator"
        node.command, node.command_at = effect, self.now

    def _replica_changed(self, node: Node) -> None:
        self.tell(node, on.ReplicaChanged(node.role, node.stream, node.record, node.heard))

    # -- moves: each returns whether it could be made

    def boot(self, node: Node) -> bool:
        if node.up:
            return False
        node.up, node.boots = True, node.boots + 1
        node.role, node.stream = Role.SECONDARY, Stream.DISCONNECTED
        node.beat = self.now
        return self.start_operator(node)

    def start_operator(self, node: Node) -> bool:
        if not node.up or node.operator:
            return False
        node.operator = True
        policy = Policy(
            node.name,
            self.peer(node).name,
            preferred=self.preferred,
            arbiter=self.arbiter,
            former_primary_wins=self.former_primary_wins,
        )
        seed = f"{node.boots}-{self.now}-{len(self.story)}"
        node.core = State(policy, seed, now=self.now, maintenance=node.maintenance)
        node.command = node.question = None
        self._tell_surroundings(node)
        if node.gate_unit == "active":
            self.tell(node, on.GateChanged(True))
        self._replica_changed(node)
        return True

    def kill_operator(self, node: Node) -> bool:
        """The operator dies; what runs goes on. Its last status goes on being published."""
        if not node.operator:
            return False
        node.operator, node.core, node.command, node.question = False, None, None, None
        if node.gate_unit == "asking":
            node.gate_unit, node.jobs = "inactive", ["secondary"]
        return True

    def crash(self, node: Node) -> bool:
        if not node.up:
            return False
        self.kill_operator(node)
        node.up, node.gate_unit, node.jobs, node.published = False, "inactive", [], None
        node.role, node.in_flight = Role.SECONDARY, frozenset()
        node.stream = Stream.DISCONNECTED
        self._break_stream()
        return True

    def deliver(self, node: Node) -> bool:
        """The peer's heartbeat arrives here."""
        peer = self.peer(node)
        if self.heartbeat_cut or not peer.up or node.core is None:
            return False
        if peer.published is None:
            self.tell(node, on.PeerFelt())
        else:
            self.tell(node, on.PeerHeard(peer.published))
        return True

    def silence(self, node: Node) -> bool:
        """`detect` passes without a heartbeat."""
        if node.core is None or (self.peer(node).up and not self.heartbeat_cut):
            return False
        self._advance(DETECT)
        return True

    def _tell_surroundings(self, node: Node) -> None:
        answer = on.Witness.REACHABLE if node.witness else on.Witness.UNREACHABLE
        self.tell(node, on.WitnessChanged(answer))
        if self.vips:
            self.tell(node, on.VipProbed(self._probe(node)))

    def _probe(self, node: Node) -> on.Probe:
        peer = self.peer(node)
        if node.gate_unit == "active":
            return on.Probe.NONE
        if peer.up and peer.gate_unit == "active" and not self.client_cut:
            return on.Probe.ANSWERED
        return on.Probe.UNANSWERED

    def ask_arbiter(self, node: Node, answer_lost: bool = False) -> bool:
        """The arbiter is asked, and answers unless that is lost."""
        question, node.question = node.question, None
        if question is None:
            return False
        generation = question.generation
        if node.witness:
            if isinstance(question, do.Claim):
                self.heirs.setdefault(generation, node.name)
            elif self.heirs.get(generation) == node.name:
                del self.heirs[generation]
        if node.witness and not answer_lost:
            self.tell(node, on.HeirTold(generation, self.heirs.get(generation, "")))
        else:
            self.tell(node, on.ArbiterFailed("no answer"))
        return True

    def pass_time(self, node: Node) -> bool:
        self._advance(1)
        self.tell(node, on.TimePassed())
        return True

    def _advance(self, seconds: int) -> None:
        """Time passes. A second is half of `detect`, the witness's window, and several beats:
        each brings the witness's present answer, and the peer's status or its silence."""
        for _ in range(seconds):
            self.now += 1
            for node in self.nodes.values():
                self._tell_surroundings(node)
                self._hear_stream(node)
                if self.deliver(node):
                    node.beat = self.now
                elif self.now - node.beat >= DETECT and node.core is not None:
                    self.tell(node, on.PeerLost())

    def _hear_stream(self, node: Node) -> None:
        """A replicator without a stream never stops to knock at the other's port; whoever is
        answered, if only with a refusal, has heard the other."""
        if self._stream_possible(node):
            node.heard = self.now
            self._replica_changed(node)

    def run_job(self, node: Node) -> bool:
        """systemd works on what was started last."""
        if not node.up or not node.jobs:
            return False
        target = node.jobs.pop(0)
        if target == "primary":
            if node.gate_unit == "inactive" and not node.operator:
                node.jobs = ["secondary"]  # nobody answers on the bus: the gate fails
            elif node.gate_unit == "inactive":
                node.gate_unit = "asking"
                self.tell(node, on.PromotionAsked())
            return True
        if node.gate_unit != "inactive":
            was = node.gate_unit
            node.gate_unit = "inactive"
            self.tell(node, on.GateChanged(False))
            if was == "active" and node.role is not Role.SECONDARY:
                self._become_secondary(node)
        return True

    def isolate(self, node: Node, target: str) -> bool:
        """An administrator: systemctl isolate ha-TARGET.target."""
        if not node.up or node.jobs:
            return False
        node.jobs = [target]
        return True

    def run_command(self, node: Node) -> bool:
        """The replicator carries out what it was told."""
        command = node.command
        if command is None or not node.up:
            return False
        node.command = None
        if self.now > node.command_at and isinstance(command, do.BecomePrimary | do.ContinueAlone):
            # Permission to write without the peer is good for a moment only.
            self.tell(node, on.ReplicaFailed("too late"))
            return True
        match command:
            case do.BecomePrimary(_, force) if not force and self._must_refuse(node):
                self.tell(node, on.ReplicaFailed("a primary is connected"))
                return True
            case do.BecomePrimary(generation):
                self._become_primary(node, generation)
            case do.ContinueAlone(generation):
                if node.role is Role.PRIMARY and node.stream is Stream.HELD:
                    node.record = node.record.begin(generation)
                    node.stream = Stream.ALONE
                    self._acknowledge(node)
            case do.BecomeSecondary():
                self._become_secondary(node)
            case do.MarkOutdated():
                node.record = replace(node.record, up_to_date=False)
                self._break_stream()
                node.stream = Stream.DISCONNECTED
            case do.YieldBranch(to):
                assert node.role is Role.SECONDARY
                node.record = replace(node.record, up_to_date=False, yielded_to=to)
            case _:
                raise AssertionError(command)
        self._replica_changed(node)
        self.tell(node, on.ReplicaDone())
        return True

    def _must_refuse(self, node: Node) -> bool:
        connected = node.stream in (Stream.RESYNC, Stream.SYNCED)
        return node.role is Role.SECONDARY and (connected or not node.record.consistent)

    def _become_primary(self, node: Node, generation: str) -> None:
        if generation:
            self._break_stream()
            node.record = node.record.begin(generation)
            node.role, node.stream = Role.PRIMARY, Stream.ALONE
            return
        node.record = replace(node.record, last_primary=True, up_to_date=True)
        node.role = Role.PRIMARY
        peer = self.peer(node)
        tokens = node.stream is peer.stream is Stream.HANDED_OVER
        if tokens and peer.role is Role.SECONDARY and self._stream_possible(node):
            node.stream = peer.stream = Stream.SYNCED
            self._replica_changed(peer)
            return
        node.stream = Stream.HELD

    def _become_secondary(self, node: Node) -> None:
        if node.role is Role.SECONDARY:
            return
        peer = self.peer(node)
        synced = node.stream is Stream.SYNCED and not self.stream_cut and peer.up
        node.role = Role.SECONDARY
        if synced:
            self._acknowledge(node)
            node.record = replace(node.record, last_primary=False, up_to_date=True)
            node.stream = peer.stream = Stream.HANDED_OVER
            self._replica_changed(peer)
        else:
            node.stream = Stream.DISCONNECTED
            node.in_flight = frozenset()
            if peer.role is Role.SECONDARY and peer.stream is Stream.RESYNC:
                peer.stream = Stream.DISCONNECTED
                self._replica_changed(peer)
        self._replica_changed(node)

    def _stream_possible(self, node: Node) -> bool:
        return node.up and self.peer(node).up and not self.stream_cut

    def connect(self, node: Node) -> bool:
        """The primary's replicator finds its standby: the resync begins."""
        peer = self.peer(node)
        if not self._stream_possible(node) or node.role is not Role.PRIMARY:
            return False
        if peer.role is not Role.SECONDARY or node.stream not in (Stream.ALONE, Stream.HELD):
            return False
        if isinstance(peer.command, do.MarkOutdated):
            return False  # a command takes milliseconds, the next knock comes in tenths of a second
        relation = peer.record.relation_to(node.record)
        if relation not in (Relation.EQUAL, Relation.ANCESTOR):
            return False
        if compare(peer.record.lineage, node.record.lineage) is Relation.DIVERGED:
            peer.kept |= peer.writes
        peer.record = replace(peer.record, consistent=False, up_to_date=False)
        node.stream = peer.stream = Stream.RESYNC
        self._acknowledge(node)
        self._replica_changed(node)
        self._replica_changed(peer)
        return True

    def finish_resync(self, node: Node) -> bool:
        peer = self.peer(node)
        if node.role is not Role.PRIMARY or node.stream is not Stream.RESYNC or self.stream_cut:
            return False
        node.record = replace(node.record, peer_outdated=False)
        node.stream = peer.stream = Stream.SYNCED
        peer.writes = node.writes
        peer.record = replace(
            node.record, consistent=True, up_to_date=True, last_primary=False, peer_outdated=False
        )
        self._replica_changed(node)
        self._replica_changed(peer)
        return True

    def finish_resync_half(self, node: Node) -> bool:
        """SYNC_DONE is on its way when the stream breaks: the primary already holds, and
        the standby may be up to date."""
        peer = self.peer(node)
        if not self.finish_resync(node):
            return False
        self._break_stream()
        return peer.up

    def cut_stream(self) -> bool:
        self.stream_cut = True
        self._break_stream()
        return True

    def _break_stream(self) -> None:
        for node in self.nodes.values():
            former = node.stream
            if node.role is Role.PRIMARY and former is Stream.SYNCED:
                node.stream = Stream.HELD
            elif node.role is Role.PRIMARY and former is Stream.RESYNC:
                node.stream = Stream.ALONE
            elif node.role is Role.SECONDARY and former is Stream.SYNCED:
                node.stream = Stream.LOST
            elif node.role is Role.SECONDARY and former is Stream.RESYNC:
                node.stream = Stream.DISCONNECTED
            if former in (Stream.SYNCED, Stream.RESYNC):
                node.heard = self.now
            if node.stream is not former and node.up:
                self._replica_changed(node)

    def write(self, node: Node) -> bool:
        """An application on this node writes once."""
        if not node.up or node.role is not Role.PRIMARY:
            return False
        node.writes |= {self.next_write}
        node.in_flight |= {self.next_write}
        self.next_write += 1
        if node.acknowledges:
            self._acknowledge(node)
        return True

    def _acknowledge(self, node: Node) -> None:
        if node.stream is Stream.SYNCED:
            peer = self.peer(node)
            peer.writes |= node.in_flight
        self.acknowledged |= node.in_flight
        node.in_flight = frozenset()

    # -- what must hold in every state

    def check(self) -> None:
        """Raises AssertionError with the story if an invariant is broken."""
        if self.forced:
            return
        writers = [n for n in self.nodes.values() if n.acknowledges]
        assert len(writers) < 2, self.tell_story("two writers")
        for node in writers:
            lost = self.acknowledged - node.writes
            assert not lost, self.tell_story(f"{node.name} serves without {sorted(lost)}")

    def tell_story(self, claim: str) -> str:
        lines = [
            f"{n.name}: up={n.up} gate={n.gate_unit} {n.role} {n.stream} writes={sorted(n.writes)} "
            f"{n.record} {n.core and (n.core.phase, n.core.reason, n.core.contact)}"
            for n in self.nodes.values()
        ]
        return "\n".join([claim, *self.story, *lines])

    def shows(self) -> set[str]:
        return {shown(n.core)[0] for n in self.nodes.values() if n.core is not None}

    @property
    def settled(self) -> bool:
        return self.shows() == {Shown.PRIM, Shown.SECOND}

    def heal(self) -> None:
        self.heartbeat_cut = self.stream_cut = self.client_cut = False
        for node in self.nodes.values():
            node.witness = True
            if node.core is not None and node.core.phase is Phase.LEAVING:
                self.crash(node)  # it has left; an administrator starts it again
            if not node.up:
                self.boot(node)
            self.start_operator(node)
            if node.core is not None and node.core.maintenance.on:
                self.tell(node, on.MaintenanceCommanded(False))

    def calm(self, rounds: int = 100) -> bool:
        """No more faults: everything that can happen does, in turn, until the pair settles."""
        self.heal()
        for _ in range(rounds):
            for node in self.nodes.values():
                self._tell_surroundings(node)
                quiet: tuple[Callable[[Node], bool], ...] = (
                    self.deliver,
                    self.run_job,
                    self.run_command,
                    self.ask_arbiter,
                    self.connect,
                    self.finish_resync,
                    self.pass_time,
                )
                for move in quiet:
                    move(node)
                    self.check()
            if self.settled and all(n.gate_unit != "asking" for n in self.nodes.values()):
                return True
        return False


def started_pair(world: World) -> World:
    """Bring two empty nodes to PRIM / SECOND, as an administrator does."""
    for node in world.nodes.values():
        world.boot(node)
    first = world.nodes[NAMES[0]]
    for node in world.nodes.values():
        world.deliver(node)
    world.tell(first, on.PromoteCommanded())
    assert world.calm(), world.tell_story("first start does not settle")
    assert first.core is not None and first.core.gate is Gate.OPEN
    return world
