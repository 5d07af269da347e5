# SPDX-License-Identifier: Apache-2.0
"""Two shipped cores in a hostile little world: the model that tests explore.

A node is its core, a replicator (role, stream, durable record, the set of writes it
holds), and a gate unit. Whatever takes time in reality is a separate move here: a
status on its way, a command to the replicator, a systemd job. The network loses and
delays, nodes crash and come back, paths are cut.

Time is counted in whole seconds, two of which are `detect`. Each brings the witness's present
answer, a heartbeat or its absence, and a knock of the replicators, so that whatever is
lost for longer than that is a path that is cut, in one direction. Of the statuses that a node
published, its peer gets some, in their order: so much does `haoperator.heartbeat.session` let
through. `deliver` brings the newest one and `deliver_late` one that was overtaken by a cut, a
crash or a newer one.

What is *not* modelled is what the configuration rules out, and both are documented:
a node is declared silent only if nothing of it was heard for `detect`, with the
witness's answer newer than the cut; and if both nodes reach the witness, at least one
path between them works (`World.a_path_works`). With an arbiter no path needs to work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Self

from haoperator.core import effects as do
from haoperator.core import events as on
from haoperator.core.generation import Relation, compare
from haoperator.core.record import DataRecord
from haoperator.core.state import Gate, Policy, Shown, State, shown
from haoperator.core.status import Maintenance, Phase, Role, Status, Stream
from haoperator.core.step import step

NAMES = ("node-a", "node-b")
DETECT = 2
STATUS_LIVES = 5
"""Seconds after which the heartbeat withdraws what an operator does not repeat."""
LINES = 80
"""Of a story: whoever does not settle makes long ones."""
LATE_LIMIT = 1
"""Statuses of one node that are on their way at the same time."""


@dataclass
class Node:
    """One node. `record`, `writes` and `maintenance` survive a crash, the rest does not."""

    name: str
    starts: int = 0
    """Of the operator. Makes each of its seeds a new one."""
    up: bool = False
    operator: bool = False
    replicator: bool = False
    core: State | None = None
    role: Role = Role.SECONDARY
    stream: Stream = Stream.DISCONNECTED
    heard: int = 0
    token: int = 0
    """Of the last hand-over, 0 for none: who holds the same one has missed nothing since."""
    record: DataRecord = field(default_factory=DataRecord)
    writes: frozenset[int] = frozenset()
    kept: frozenset[int] = frozenset()
    """Of branches that were yielded: set aside before the first of it was overwritten."""
    in_flight: frozenset[int] = frozenset()
    """Written here, not acknowledged: the peer was not known to have them."""
    command: do.Effect | None = None
    command_at: int = 0
    moved: bool = False
    """The stream is not what it was when the command was given."""
    gate_unit: str = "inactive"
    job: str = ""
    """What systemd was told to start last, and has not begun with."""
    published: Status | None = None
    killed_at: int = 0
    """When the operator was, whose last status is still published."""
    deaf: bool = False
    """No heartbeat of the peer arrives."""
    beat: int = 0
    """When one arrived last."""
    silent: bool = False
    received: Status | None = None
    wire: tuple[Status, ...] = ()
    """What the peer published since, oldest first, and may still arrive."""
    witness: bool = True
    """Whether it reaches the witness, or the arbiter where there is one."""
    question: do.Claim | do.Disclaim | None = None
    maintenance: Maintenance = field(default_factory=Maintenance)

    @property
    def acknowledges(self) -> bool:
        """Whether a write that an application makes here now would be acknowledged."""
        served = self.up and self.replicator and self.role is Role.PRIMARY
        return served and self.stream in (Stream.ALONE, Stream.RESYNC, Stream.SYNCED)

    def __setattr__(self, name: str, value: object) -> None:
        if name == "stream" and self.__dict__.get("stream", value) is not value:
            self.__dict__["moved"] = True
        self.__dict__[name] = value

    def copy(self) -> Node:
        twin = object.__new__(Node)
        twin.__dict__.update(self.__dict__)
        return twin


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
        automatic: bool = True,
        former_primary_wins: bool = False,
        assumed: bool = True,
    ) -> None:
        self.preferred = preferred
        self.arbiter = arbiter
        self.vips = vips
        self.automatic = automatic
        self.former_primary_wins = former_primary_wins
        self.assumed = assumed
        """The documented assumption about the paths holds."""
        self.heirs: dict[str, str] = {}
        self.client_cut = False
        self.stream_cut = False
        self.forced = False
        """Somebody forced a promotion: all promises are off until the nodes have met again."""
        self.refusals: list[str] = []
        self.edges: set[tuple[str, str]] = set()
        """Which state was seen to follow which."""
        self.now = 0
        self.since = 0
        """When the story begins, which counts from there."""
        self.nodes = {name: Node(name) for name in NAMES}
        self.acknowledged: frozenset[int] = frozenset()
        self.next_write = 1
        self.handovers = 0
        self.late_ones = True
        """Whether a heartbeat may still be late: no need to remember them otherwise."""
        self.telling = True
        """Whether anybody wants the story."""
        self.story: list[str] = []

    def copy(self) -> Self:
        """A twin to try something on. Its story is the same list."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin.nodes = {name: node.copy() for name, node in self.nodes.items()}
        twin.heirs = dict(self.heirs)
        return twin

    # -- helpers

    def peer(self, node: Node) -> Node:
        return self.nodes[NAMES[1] if node.name == NAMES[0] else NAMES[0]]

    def tell(self, node: Node, event: on.Event) -> None:
        """Let one core take one step and note what it wants."""
        core = node.core
        if core is None:
            return
        node.core, effects = step(core, event, self.now)
        if self.telling:
            self.edges.add((_shows(core), _shows(node.core)))
            if _looks(node.core) != _looks(core):
                self.story.append(f"{self.now - self.since:8.1f} {node.name}: {_looks(node.core)}")
        for effect in effects:
            self._want(node, effect)

    def _want(self, node: Node, effect: do.Effect) -> None:
        match effect:
            case do.Publish(status):
                node.published = status
                peer = self.peer(node)
                if self.late_ones and peer.up and not peer.deaf:
                    peer.wire = (*peer.wire, status)[-LATE_LIMIT:]
            case do.StartPrimary():
                node.job = "primary"
            case do.StartSecondary():
                node.job = "secondary"
            case do.OpenGate():
                node.gate_unit = "active"
            case do.RefuseGate():
                node.gate_unit = "inactive"
                node.job = "secondary"
            case do.BecomePrimary() | do.BecomeSecondary() | do.ContinueAlone():
                self._command(node, effect)
            case do.MarkOutdated() | do.YieldBranch():
                self._command(node, effect)
            case do.Claim() | do.Disclaim():
                assert node.question is None, f"{node.name}: a second question to the arbiter"
                node.question = effect
            case do.Refuse(reason) if self.telling:
                self.refusals.append(reason)
            case do.KeepMaintenance(maintenance):
                node.maintenance = maintenance
            case _:
                pass

    def _command(self, node: Node, command: do.Effect) -> None:
        assert node.command is None, f"{node.name}: a second command to the replicator"
        node.command, node.command_at, node.moved = command, self.now, False

    def _replica_changed(self, node: Node) -> None:
        if node.replicator:
            self.tell(node, on.ReplicaChanged(node.role, node.stream, node.record, node.heard))

    # -- moves of nodes and processes: each returns whether it could be made

    def boot(self, node: Node) -> bool:
        if node.up:
            return False
        node.up = node.replicator = True
        node.role, node.stream, node.token = Role.SECONDARY, Stream.DISCONNECTED, 0
        node.beat, node.silent, node.received, node.wire = self.now, False, None, ()
        node.heard = 0
        return self.start_operator(node, joins=True)

    def start_operator(self, node: Node, joins: bool = False) -> bool:
        """It reads the levels of its neighbours."""
        if not node.up or node.operator:
            return False
        node.operator = True
        node.starts += 1
        policy = Policy(
            node.name,
            self.peer(node).name,
            automatic=self.automatic,
            preferred=self.preferred,
            arbiter=self.arbiter,
            former_primary_wins=self.former_primary_wins,
        )
        node.core = State(
            policy, str(node.starts), now=self.now, maintenance=node.maintenance, joins=joins
        )
        self._tell_surroundings(node)
        if node.gate_unit == "active":
            self.tell(node, on.GateChanged(True))
        self._replica_changed(node)
        if node.silent:
            self.tell(node, on.PeerLost())
        elif node.received is not None:
            self.tell(node, on.PeerHeard(node.received))
        return True

    def kill_operator(self, node: Node) -> bool:
        """The operator dies; what runs goes on. Its last status is published for a while."""
        if not node.operator:
            return False
        node.killed_at = self.now
        node.operator, node.core, node.command, node.question = False, None, None, None
        if node.gate_unit == "asking":
            node.gate_unit, node.job = "inactive", "secondary"
        return True

    def kill_replicator(self, node: Node) -> bool:
        """What writes waits in the kernel until another one serves the mounts."""
        if not node.replicator:
            return False
        self._break_stream()
        node.replicator = False
        self.tell(node, on.ReplicaGone())
        if node.command is not None:
            node.command = None
            self.tell(node, on.ReplicaFailed("it is gone"))
        return True

    def start_replicator(self, node: Node) -> bool:
        """It finds the mounts of the former one, and holds every write until it knows its role."""
        if not node.up or node.replicator:
            return False
        node.replicator = True
        node.role, node.stream, node.token, node.heard = Role.HELD, Stream.DISCONNECTED, 0, 0
        self._replica_changed(node)
        return True

    def crash(self, node: Node) -> bool:
        if not node.up:
            return False
        self.kill_operator(node)
        node.up, node.gate_unit, node.job, node.published = False, "inactive", "", None
        self._break_stream()
        node.role, node.in_flight, node.replicator = Role.SECONDARY, frozenset(), False
        node.stream = Stream.DISCONNECTED
        return True

    # -- heartbeats

    @property
    def heartbeat_cut(self) -> bool:
        """In either direction. Setting it cuts or heals both."""
        return any(node.deaf for node in self.nodes.values())

    @heartbeat_cut.setter
    def heartbeat_cut(self, cut: bool) -> None:
        for node in self.nodes.values():
            node.deaf = cut

    def deliver(self, node: Node) -> bool:
        """The peer's newest heartbeat arrives here. False if that tells nothing new."""
        peer = self.peer(node)
        if node.deaf or not peer.up or not node.up:
            return False
        node.beat, node.wire = self.now, ()
        if node.received == peer.published and not node.silent:
            return False
        self._hear(node, peer.published)
        return True

    def deliver_late(self, node: Node) -> bool:
        """One arrives that was sent before a cut or a crash, or before a newer one."""
        peer = self.peer(node)
        if not node.up or not node.wire:
            return False
        if not node.deaf and node.wire[0] is peer.published:
            return False  # this is `deliver`
        status, *rest = node.wire
        node.wire, node.beat = tuple(rest), self.now
        self._hear(node, status)
        return True

    def _hear(self, node: Node, status: Status | None) -> None:
        node.received, node.silent = status, False
        self.tell(node, on.PeerFelt() if status is None else on.PeerHeard(status))

    # -- time, and what is found out as it passes

    def silence(self, node: Node) -> bool:
        """`detect` passes without a heartbeat."""
        if node.core is None or (self.peer(node).up and not node.deaf):
            return False
        self.advance(DETECT)
        return True

    def pass_time(self, _node: Node) -> bool:
        self.advance(1)
        return True

    def advance(self, seconds: int) -> None:
        """Time passes. A second is half of `detect`, the witness's window, and several beats:
        each brings the witness's present answer, and the peer's status or its silence."""
        for _ in range(seconds):
            self.now += 1
            for node in self.nodes.values():
                if not node.operator and self.now - node.killed_at >= STATUS_LIVES:
                    node.published = None
            for node in self.nodes.values():
                self._tell_surroundings(node)
                self.deliver(node)
                falls_silent = node.up and self.now - node.beat >= DETECT and not node.silent
                node.silent = node.silent or falls_silent
                if node.silent:  # before that, nobody looks at it
                    self._hear_stream(node)
                if falls_silent:
                    self.tell(node, on.PeerLost())
            for node in self.nodes.values():
                self.tell(node, on.TimePassed())

    def _tell_surroundings(self, node: Node) -> None:
        core = node.core
        if core is None:
            return
        answer = on.Witness.REACHABLE if node.witness else on.Witness.UNREACHABLE
        if core.witness is not answer:
            self.tell(node, on.WitnessChanged(answer))
        if self.vips and core.probe is not (found := self._probe(node)):
            self.tell(node, on.VipProbed(found))

    def _probe(self, node: Node) -> on.Probe:
        peer = self.peer(node)
        if node.gate_unit == "active":
            return on.Probe.NONE
        if peer.up and peer.gate_unit == "active" and not self.client_cut:
            return on.Probe.ANSWERED
        return on.Probe.UNANSWERED

    def _hear_stream(self, node: Node) -> None:
        """A replicator without a stream never stops to knock at the other's port; whoever is
        answered, if only with a refusal, has heard the other."""
        if self._stream_possible() and node.heard != self.now:
            node.heard = self.now
            self._replica_changed(node)

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

    # -- systemd

    def run_job(self, node: Node, answer_lost: bool = False) -> bool:
        """systemd works on what was started last. `answer_lost`: of a hand-over that it brings."""
        if not node.up or not node.job:
            return False
        target, node.job = node.job, ""
        if target == "primary":
            if node.gate_unit == "inactive" and not node.operator:
                node.job = "secondary"  # nobody answers on the bus: the gate fails
            elif node.gate_unit == "inactive":
                node.gate_unit = "asking"
                self.tell(node, on.PromotionAsked())
            return True
        if node.gate_unit != "inactive":
            was, node.gate_unit = node.gate_unit, "inactive"
            if was == "active" and node.replicator:
                self._become_secondary(node, answer_lost)
            self.tell(node, on.GateChanged(False))
        return True

    def isolate(self, node: Node, target: str) -> bool:
        """An administrator: systemctl isolate ha-TARGET.target."""
        if not node.up or node.job:
            return False
        node.job = target
        return True

    # -- the replicator

    def run_command(self, node: Node, at_once: bool = False) -> bool:
        """The replicator carries out what it was told. `at_once`: and has its stream before it
        says so."""
        command = node.command
        if command is None or (at_once and command != do.BecomePrimary("")):
            return False
        node.command = None
        if refusal := self._carry_out(node, command):
            self.tell(node, on.ReplicaFailed(refusal))
            return True
        if at_once:
            self.connect(node)
        self._replica_changed(node)
        self.tell(node, on.ReplicaDone())
        return True

    def _carry_out(self, node: Node, command: do.Effect) -> str:
        """Why it is refused, `""` if it is done."""
        alone = getattr(command, "generation", "") and not getattr(command, "force", False)
        if alone and node.moved:
            return "the stream has changed since this was decided"
        match command:
            case do.BecomePrimary("", _) if node.role is Role.PRIMARY:
                return ""
            case do.ContinueAlone(generation) | do.BecomePrimary(generation, _) if (
                node.role is Role.PRIMARY
            ):
                if node.stream not in (Stream.HELD, Stream.ALONE):
                    return "the peer need not be left behind"
                return self._begin(node, generation)
            case do.ContinueAlone():
                return "this node is not primary"
            case do.BecomePrimary(generation, force):
                return self._become_primary(node, generation, force)
            case do.BecomeSecondary():
                self._become_secondary(node)
                return ""
            case do.MarkOutdated():
                if node.role is not Role.SECONDARY:
                    return f"this node is {node.role}"
                self._break_stream()
                node.record = replace(node.record, up_to_date=False)
                node.stream, node.token = Stream.DISCONNECTED, 0
                return ""
            case do.YieldBranch(to):
                if node.role is not Role.SECONDARY:
                    return f"this node is {node.role}"
                node.record = replace(node.record, up_to_date=False, yielded_to=to)
                return ""
            case _:
                raise AssertionError(command)

    def _begin(self, node: Node, generation: str) -> str:
        if self.now > node.command_at:
            return "too late"  # permission to write without the peer is good for a moment only
        node.record, node.token = node.record.begin(generation), 0
        node.stream = Stream.ALONE
        if node.role is Role.PRIMARY:
            self._acknowledge(node)
        return ""

    def _become_primary(self, node: Node, generation: str, force: bool) -> str:
        if not generation and not node.record.generation:
            return "there is no generation to keep"
        connected = node.stream in (Stream.RESYNC, Stream.SYNCED)
        if not force and (connected or not node.record.consistent):
            return "a primary is connected, or the data is a mixture"
        self._break_stream()
        if generation:
            if late := self._begin(node, generation):
                return late
        else:
            node.record = replace(node.record, last_primary=True, up_to_date=True)
        node.role = Role.PRIMARY
        node.stream = Stream.ALONE if node.record.peer_outdated else Stream.HELD
        if node.stream is Stream.ALONE:
            self._acknowledge(node)
        return ""

    def _become_secondary(self, node: Node, answer_lost: bool = False) -> None:
        """`answer_lost`: the peer knows that nothing is missing, and this node does not know
        that it knows."""
        if node.role is Role.SECONDARY:
            return
        peer = self.peer(node)
        if node.role is Role.PRIMARY and node.stream is Stream.SYNCED:
            self._acknowledge(node)
            self.handovers += 1
            peer.token, peer.stream = self.handovers, Stream.HANDED_OVER
            node.role, node.stream = Role.SECONDARY, Stream.DISCONNECTED
            if not answer_lost:
                node.record = replace(node.record, last_primary=False, up_to_date=True)
                node.token, node.stream = self.handovers, Stream.LOST
            self._replica_changed(peer)
        else:
            self._break_stream()
            node.role, node.stream = Role.SECONDARY, Stream.DISCONNECTED
        node.in_flight = frozenset()
        self._replica_changed(node)

    def _stream_possible(self) -> bool:
        return not self.stream_cut and all(n.up and n.replicator for n in self.nodes.values())

    def connect(self, node: Node, answer_lost: bool = False) -> bool:
        """The primary's replicator finds its standby: the resync begins, or nothing was missed.
        `answer_lost`: the standby accepts, and the primary does not get to know."""
        peer = self.peer(node)
        if not self._stream_possible() or node.role is not Role.PRIMARY:
            return False
        if peer.role is not Role.SECONDARY or node.stream not in (Stream.ALONE, Stream.HELD):
            return False
        relation = peer.record.relation_to(node.record)
        if relation not in (Relation.EQUAL, Relation.ANCESTOR):
            return False
        same = node.token != 0 and node.token == peer.token and peer.record.consistent
        if relation is Relation.EQUAL and same:
            stream = Stream.SYNCED
            peer.record = replace(
                peer.record, up_to_date=True, last_primary=False, peer_outdated=False
            )
        else:
            if compare(peer.record.lineage, node.record.lineage) is Relation.DIVERGED:
                peer.kept |= peer.writes
            stream = Stream.RESYNC
            peer.record = replace(peer.record, consistent=False, up_to_date=False)
        peer.token, peer.stream = 0, stream
        if answer_lost:
            peer.stream = Stream.LOST if stream is Stream.SYNCED else Stream.DISCONNECTED
        else:
            node.record = replace(node.record, peer_outdated=stream is Stream.RESYNC)
            node.token, node.stream = 0, stream
            self._acknowledge(node)
            self._replica_changed(node)
        self._replica_changed(peer)
        return True

    def finish_resync(self, node: Node, lost: str = "") -> bool:
        """`lost`: the last word of the primary ("done"), or the answer to it ("answer")."""
        peer = self.peer(node)
        if node.role is not Role.PRIMARY or node.stream is not Stream.RESYNC:
            return False
        node.record = replace(node.record, peer_outdated=False)
        if lost != "done":
            peer.stream = Stream.SYNCED
            peer.writes = node.writes
            peer.record = replace(
                node.record,
                consistent=True,
                up_to_date=True,
                last_primary=False,
                peer_outdated=False,
            )
        if lost:
            # A loss of the peer holds writes from here on, because it may be up to date.
            node.stream = Stream.SYNCED
            self._break_stream()
            return True
        node.stream = Stream.SYNCED
        self._replica_changed(node)
        self._replica_changed(peer)
        return True

    def finish_resync_half(self, node: Node) -> bool:
        return self.finish_resync(node, lost="answer")

    def cut_stream(self) -> bool:
        self.stream_cut = True
        self._break_stream()
        return True

    def _break_stream(self) -> None:
        """Whichever way: the peer was heard on it a moment ago."""
        for node in self.nodes.values():
            former = node.stream
            if former not in (Stream.SYNCED, Stream.RESYNC):
                continue
            if node.role is Role.PRIMARY:
                node.stream = Stream.HELD if former is Stream.SYNCED else Stream.ALONE
            else:
                node.stream = Stream.LOST if former is Stream.SYNCED else Stream.DISCONNECTED
            node.heard = self.now
        for node in self.nodes.values():
            core = node.core
            if core is not None and core.replica is not None and core.stream is not node.stream:
                self._replica_changed(node)

    # -- clients

    def write(self, node: Node) -> bool:
        """An application on this node writes once."""
        if not node.up or not node.replicator or node.role is not Role.PRIMARY:
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

    @property
    def a_path_works(self) -> bool:
        """The documented assumption: if both nodes reach the witness, one path between them
        works: heartbeats in one direction at least, the stream, or the clients' network, on
        which the standby finds the virtual IP of a primary that lives."""
        if self.arbiter or not all(node.witness for node in self.nodes.values()):
            return True
        if not self.stream_cut or not all(node.deaf for node in self.nodes.values()):
            return True
        return self.vips and not self.client_cut

    def check(self) -> None:
        """Raises AssertionError with the story if an invariant is broken: never two writers,
        nobody serves without an acknowledged write, and whoever may become primary without
        force has all of them."""
        if self.forced:
            return
        a, b = self.nodes.values()
        assert not (a.acknowledges and b.acknowledges), self.tell_story("two writers")
        keepers = 0
        for node, relation in (
            (a, compare(a.record.lineage, b.record.lineage)),
            (b, compare(b.record.lineage, a.record.lineage)),
        ):
            whole = self.acknowledged <= node.writes
            if not whole and node.acknowledges:
                lost = sorted(self.acknowledged - node.writes)
                raise AssertionError(self.tell_story(f"{node.name} serves without {lost}"))
            if relation is Relation.DIVERGED:
                raise AssertionError(self.tell_story("diverged, and nobody forced anything"))
            stale = relation is Relation.ANCESTOR
            if stale or not node.record.consistent or not node.record.generation:
                continue
            if not whole:
                lost = sorted(self.acknowledged - node.writes)
                raise AssertionError(self.tell_story(f"{node.name} may serve without {lost}"))
            keepers += 1
        if not keepers and self.acknowledged:
            raise AssertionError(self.tell_story("nobody has all that was acknowledged"))

    def tell_story(self, claim: str) -> str:
        lines = [
            f"{n.name}: up={n.up} gate={n.gate_unit} {n.role} {n.stream} writes={sorted(n.writes)} "
            f"{n.record} {n.core and (n.core.phase, n.core.reason, n.core.contact)}"
            for n in self.nodes.values()
        ]
        story = self.story
        if len(story) > LINES:
            story = [*story[: LINES // 2], f"{'':8} ...", *story[-LINES // 2 :]]
        return "\n".join([claim, *story, *lines])

    def shows(self) -> set[str]:
        return {shown(n.core)[0] for n in self.nodes.values() if n.core is not None}

    @property
    def settled(self) -> bool:
        """PRIM and SECOND, or after force a split brain of which both nodes speak, and in
        which at most one writes."""
        if any(node.gate_unit == "asking" for node in self.nodes.values()):
            return False
        if self.shows() == {Shown.PRIM, Shown.SECOND}:
            return True
        if not any(node.record.generation for node in self.nodes.values()):
            return True  # nobody was ever named the first primary
        if not self.forced:
            return False
        a, b = self.nodes.values()
        diverged = compare(a.record.lineage, b.record.lineage) is Relation.DIVERGED
        return diverged and not (a.acknowledges and b.acknowledges) and self._say_split_brain()

    def _say_split_brain(self) -> bool:
        """The one that does not serve says so; the other says it in `why` beside its role."""
        return all(
            node.acknowledges or (node.core is not None and "split brain" in node.core.reason)
            for node in self.nodes.values()
        )

    def heal(self) -> None:
        self.heartbeat_cut = self.stream_cut = self.client_cut = False
        for node in self.nodes.values():
            node.witness = True
            if node.core is not None and node.core.phase is Phase.LEAVING:
                self.crash(node)  # it has left; an administrator starts it again
            if not node.up:
                self.boot(node)
            self.start_replicator(node)
            self.start_operator(node)
            if node.core is not None and node.core.maintenance.on:
                self.tell(node, on.MaintenanceCommanded(False))

    def _connect_soon(self, node: Node) -> bool:
        """A command takes milliseconds, the next knock comes in tenths of a second."""
        return self.peer(node).command is None and self.connect(node)

    def go_on(self) -> None:
        """Two seconds of a world without faults: everything that can happen does, in turn."""
        for node in self.nodes.values():
            self._tell_surroundings(node)
            quiet: tuple[Callable[[Node], bool], ...] = (
                self.deliver,
                self.run_job,
                self.run_command,
                self.ask_arbiter,
                self._connect_soon,
                self.finish_resync,
                self.pass_time,
            )
            for move in quiet:
                move(node)
                self.check()

    def calm(self, rounds: int = 100) -> bool:
        """No more faults: whether the pair settles within so many rounds."""
        self.heal()
        for _ in range(rounds):
            self.go_on()
            if self.settled:
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
