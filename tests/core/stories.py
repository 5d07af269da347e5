# SPDX-License-Identifier: Apache-2.0
"""The life cycle as stories: what happens, told as a script; what two cores do, as a transcript.

Each function below is one story. Its docstring is the title; it makes things happen in a
`Telling`, and everything that an administrator would see goes into the transcript.
"""

from __future__ import annotations

from collections.abc import Callable

from haoperator.core import events as on
from haoperator.core.record import DataRecord
from haoperator.core.state import shown
from tests.core.world import Node, World, started_pair

ROUNDS = 30
"""Enough for anything that does not wait for time."""


class Telling:
    """A started pair, node-a primary, and what is told of it."""

    def __init__(self, world: World | None = None) -> None:
        self.world = started_pair(world or World())
        self.a, self.b = self.world.nodes.values()
        self.world.story.clear()
        self.world.since = self.world.now

    def say(self, sentence: str) -> None:
        """What somebody did, or what broke."""
        self.world.story.append(f"{self.world.now - self.world.since:8.1f} -- {sentence}")

    def go_on(self, seconds: int = 0) -> None:
        """Everything that is under way comes to its end, then `seconds` pass."""
        self._settle()
        for _ in range(seconds):
            self.world.advance(1)
            for node in (self.a, self.b):
                self.world.tell(node, on.TimePassed())
            self._settle()

    def _settle(self) -> None:
        world = self.world
        moves: tuple[Callable[[Node], bool], ...] = (
            world.deliver,
            world.run_job,
            world.run_command,
            world.ask_arbiter,
            world.connect,
            world.finish_resync,
        )
        for _ in range(ROUNDS):
            for node in (self.a, self.b):
                for move in moves:
                    move(node)
                    world.check()

    def power_cut(self, node: Node) -> None:
        self.say(f"{node.name} loses its power")
        self.world.crash(node)

    def boot(self, node: Node) -> None:
        self.say(f"{node.name} boots")
        self.world.boot(node)

    def command(self, node: Node, words: str, event: on.Event) -> None:
        self.say(f"{node.name}: {words}")
        before = len(self.world.refusals)
        self.world.tell(node, event)
        for refusal in self.world.refusals[before:]:
            self.world.story.append(f"{'':8}    refused: {refusal}")

    def write(self, node: Node) -> None:
        """An application writes once."""
        acknowledged = len(self.world.acknowledged)
        self.world.write(node)
        done = len(self.world.acknowledged) > acknowledged
        self.say(f"a write on {node.name} {'is acknowledged' if done else 'waits'}")


def first_start() -> Telling:
    """First start: both wait until an administrator names the first primary"""
    telling = Telling()
    world = telling.world
    for node in (telling.a, telling.b):
        world.crash(node)
        node.record, node.writes = DataRecord(), frozenset()
    world.story.clear()
    for node in (telling.a, telling.b):
        telling.boot(node)
    telling.go_on(3)
    telling.command(telling.a, "hactl promote", on.PromoteCommanded())
    telling.go_on()
    return telling


def takeover_and_return() -> Telling:
    """The primary loses its power, and comes back"""
    telling = Telling()
    telling.write(telling.a)
    telling.power_cut(telling.a)
    telling.go_on(3)
    telling.write(telling.b)
    telling.boot(telling.a)
    telling.go_on(1)
    return telling


def preferred_node_returns() -> Telling:
    """The preferred node loses its power, comes back, and takes its role back"""
    telling = Telling(World(preferred="node-a"))
    telling.power_cut(telling.a)
    telling.go_on(3)
    telling.boot(telling.a)
    telling.go_on(12)
    return telling


def standby_dies() -> Telling:
    """The standby loses its power: writes wait until that is certain"""
    telling = Telling()
    telling.power_cut(telling.b)
    telling.write(telling.a)
    telling.go_on(3)
    telling.write(telling.a)
    telling.boot(telling.b)
    telling.go_on(1)
    return telling


def swap() -> Telling:
    """A swap by hand, and a second one back"""
    telling = Telling()
    telling.command(telling.a, "hactl swap", on.SwapCommanded())
    telling.go_on(1)
    telling.command(telling.a, "hactl swap, on the standby", on.SwapCommanded())
    telling.go_on(1)
    return telling


def leaves_in_order() -> Telling:
    """The primary leaves in order: the takeover starts at once"""
    telling = Telling()
    world, node = telling.world, telling.a
    telling.say(f"{node.name}: systemctl stop ha-cluster.target")
    world.tell(node, on.LeaveCommanded())
    node.job = "secondary"
    telling.go_on()
    telling.say(f"{node.name} is off")
    world.crash(node)
    telling.go_on(3)
    telling.boot(node)
    telling.go_on(1)
    return telling


def both_lose_power() -> Telling:
    """Both lose their power while one was alone: the last primary proves itself and starts"""
    telling = Telling()
    telling.power_cut(telling.b)
    telling.go_on(3)
    telling.write(telling.a)
    telling.power_cut(telling.a)
    telling.boot(telling.b)
    telling.go_on(3)
    telling.say("node-b waits for node-a, which has newer data; now that boots too")
    telling.boot(telling.a)
    telling.go_on(1)
    return telling


def last_primary_starts_alone() -> Telling:
    """Both lose their power, and only the last primary comes back"""
    telling = Telling()
    telling.power_cut(telling.b)
    telling.go_on(3)
    telling.power_cut(telling.a)
    telling.boot(telling.a)
    telling.go_on(3)
    return telling


def primary_is_cut_off() -> Telling:
    """The primary is cut off from everybody: it stops before the other one starts"""
    telling = Telling()
    telling.say("node-a reaches neither node-b nor the witness")
    telling.a.witness = False
    telling.world.heartbeat_cut = True
    telling.world.cut_stream()
    telling.write(telling.a)
    telling.go_on(4)
    telling.write(telling.b)
    telling.say("the network is repaired")
    telling.world.heal()
    telling.go_on(2)
    return telling


def standby_is_cut_off() -> Telling:
    """The standby is cut off from everybody"""
    telling = Telling()
    telling.say("node-b reaches neither node-a nor the witness")
    telling.b.witness = False
    telling.world.heartbeat_cut = True
    telling.world.cut_stream()
    telling.go_on(3)
    telling.write(telling.a)
    telling.say("the network is repaired")
    telling.world.heal()
    telling.go_on(2)
    return telling


def nodes_are_cut_from_each_other() -> Telling:
    """Only the paths between the nodes are cut; the virtual IP tells that the primary lives"""
    telling = Telling(World(vips=True))
    telling.world.advance(1)
    telling.say("the nodes do not reach each other; both reach the witness and the clients")
    telling.world.heartbeat_cut = True
    telling.world.cut_stream()
    telling.go_on(3)
    telling.write(telling.a)
    telling.say("the network is repaired")
    telling.world.heal()
    telling.go_on(2)
    return telling


def arbiter_decides() -> Telling:
    """Every path between the nodes is cut, and the arbiter names the heir"""
    telling = Telling(World(arbiter=True))
    telling.say("the nodes do not reach each other; both reach the arbiter")
    telling.world.heartbeat_cut = True
    telling.world.cut_stream()
    telling.go_on(3)
    telling.write(telling.a)
    telling.say("the network is repaired")
    telling.world.heal()
    telling.go_on(2)
    return telling


def only_the_stream_is_cut() -> Telling:
    """Only the replication stream is cut: the nodes agree by heartbeat"""
    telling = Telling()
    telling.say("the replication stream is cut")
    telling.world.cut_stream()
    telling.write(telling.a)
    telling.go_on(1)
    telling.write(telling.a)
    telling.say("the network is repaired")
    telling.world.heal()
    telling.go_on(1)
    return telling


def only_heartbeats_are_cut() -> Telling:
    """Only the heartbeats are cut: a live stream is not dead"""
    telling = Telling()
    telling.say("all heartbeat links are cut")
    telling.world.heartbeat_cut = True
    telling.go_on(4)
    telling.write(telling.a)
    telling.say("the network is repaired")
    telling.world.heal()
    telling.go_on(1)
    return telling


def application_fails() -> Telling:
    """An application fails too often on one node, then on the other: it does not move back"""
    telling = Telling()
    for node in (telling.a, telling.b):
        telling.command(node, "ha-app@web failed too often", on.AppGaveUp("ha-app@web.service"))
        telling.go_on(1)
    return telling


def maintenance() -> Telling:
    """Maintenance: nothing moves by itself, not even when the primary dies"""
    telling = Telling()
    telling.command(telling.b, "hactl maintenance on", on.MaintenanceCommanded(True))
    telling.go_on(1)
    telling.power_cut(telling.a)
    telling.go_on(4)
    telling.command(telling.b, "hactl maintenance off", on.MaintenanceCommanded(False))
    telling.go_on(1)
    return telling


def split_brain_by_force(world: World | None = None) -> Telling:
    """Split brain by force: one of two stops, and nothing is overwritten"""
    telling = Telling(world)
    telling.say("node-b reaches neither node-a nor the witness")
    telling.b.witness = False
    telling.world.heartbeat_cut = True
    telling.world.cut_stream()
    telling.go_on(3)
    telling.command(telling.b, "hactl promote --force", on.PromoteCommanded(True))
    telling.world.forced = True
    telling.go_on(1)
    telling.say("the network is repaired")
    telling.world.heal()
    telling.go_on(3)
    return telling


def split_brain_is_ended_by_yielding() -> Telling:
    """Split brain: one node's data yields, is set aside, and the pair is whole again"""
    telling = split_brain_by_force()
    telling.command(telling.a, "hactl splitbrain yield", on.YieldCommanded())
    telling.go_on(3)
    return telling


def split_brain_is_ended_by_policy() -> Telling:
    """Split brain with keep = "former-primary": the data of the node that took over yields"""
    telling = split_brain_by_force(World(former_primary_wins=True))
    telling.go_on(3)
    return telling


def stale_node_is_asked() -> Telling:
    """A stale node alone is asked to be primary: it says why not"""
    telling = Telling()
    telling.power_cut(telling.b)
    telling.go_on(3)
    telling.power_cut(telling.a)
    telling.boot(telling.b)
    telling.go_on(3)
    telling.command(telling.b, "hactl promote", on.PromoteCommanded())
    return telling


def operator_is_killed() -> Telling:
    """The operator of the primary is killed and starts again: it adopts what runs"""
    telling = Telling()
    telling.say("node-a: the operator is killed")
    telling.world.kill_operator(telling.a)
    telling.write(telling.a)
    telling.say("node-a: systemd starts it again")
    telling.world.start_operator(telling.a)
    telling.go_on(1)
    return telling


STORIES: tuple[Callable[[], Telling], ...] = (
    first_start,
    takeover_and_return,
    preferred_node_returns,
    standby_dies,
    swap,
    leaves_in_order,
    both_lose_power,
    last_primary_starts_alone,
    primary_is_cut_off,
    standby_is_cut_off,
    nodes_are_cut_from_each_other,
    arbiter_decides,
    only_the_stream_is_cut,
    only_heartbeats_are_cut,
    application_fails,
    maintenance,
    split_brain_by_force,
    split_brain_is_ended_by_yielding,
    split_brain_is_ended_by_policy,
    stale_node_is_asked,
    operator_is_killed,
)


def transcript(story: Callable[[], Telling]) -> str:
    """What happened, and how both nodes stand at the end."""
    telling = story()
    ends = []
    for node in telling.world.nodes.values():
        if node.core is None:
            ends.append(f"         {node.name} is off")
            continue
        state, transition = shown(node.core)
        ends.append(f"         {node.name} is {transition or state} ({node.core.reason})")
    return "\n".join([*telling.world.story, "", *ends])


def title(story: Callable[[], Telling]) -> str:
    return (story.__doc__ or story.__name__).strip()
