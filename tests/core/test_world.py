# SPDX-License-Identifier: Apache-2.0
"""The shipped core against random faults: never two writers, nothing lost, it settles."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from haoperator.core import events as on
from tests.core.world import NAMES, Node, World, started_pair

WALKS = 400
MOVES = 80


def moves_of(world: World, chance: random.Random) -> list[Callable[[Node], bool]]:
    """What may happen next, faults among it, weighted by repetition."""

    def assumed(*paths_cut: bool) -> bool:
        """The documented assumption: with a witness, one path between the nodes works."""
        return world.arbiter or not all(
            (*paths_cut, *(node.witness for node in world.nodes.values()))
        )

    def crash(node: Node) -> bool:
        return chance.random() < 0.3 and world.crash(node)

    def cut_heartbeat(_node: Node) -> bool:
        if not assumed(world.stream_cut, no_vips()):
            return False
        world.heartbeat_cut = True
        return True

    def no_vips() -> bool:
        return not world.vips or world.client_cut

    def cut_clients(_node: Node) -> bool:
        if not assumed(world.heartbeat_cut, world.stream_cut):
            return False
        world.client_cut = True
        return True

    def cut_stream(_node: Node) -> bool:
        if not assumed(world.heartbeat_cut, no_vips()):
            return False
        return world.cut_stream()

    def cut_between(_node: Node) -> bool:
        if not assumed(no_vips()):
            return False
        world.heartbeat_cut = True
        return world.cut_stream()

    def isolate_node(node: Node) -> bool:
        node.witness = False
        world.heartbeat_cut = True
        return world.cut_stream()

    def heal(_node: Node) -> bool:
        world.heartbeat_cut = world.stream_cut = world.client_cut = False
        for node in world.nodes.values():
            node.witness = True
        return True

    def command(node: Node) -> bool:
        event = chance.choice(
            (
                on.SwapCommanded(),
                on.PromoteCommanded(),
                on.AppGaveUp("x"),
                on.ReadinessChanged(chance.choice(("", "a full disk"))),
                on.MaintenanceCommanded(chance.random() < 0.3),
            )
        )
        world.tell(node, event)
        return True

    def leave(node: Node) -> bool:
        if node.core is None or node.gate_unit == "asking" or chance.random() > 0.2:
            return False
        world.tell(node, on.LeaveCommanded())
        node.jobs = ["secondary"]
        return True

    def isolate_target(node: Node) -> bool:
        return world.isolate(node, chance.choice(("primary", "secondary")))

    def lose_answer(node: Node) -> bool:
        return world.ask_arbiter(node, answer_lost=True)

    usual = [
        world.deliver,
        world.run_command,
        world.ask_arbiter,
        world.run_job,
        world.write,
        world.connect,
        world.finish_resync,
        world.pass_time,
        world.silence,
    ]
    faults = [
        crash,
        cut_heartbeat,
        cut_stream,
        cut_clients,
        cut_between,
        lose_answer,
        isolate_node,
        heal,
        command,
        leave,
        isolate_target,
        world.kill_operator,
        world.start_operator,
        world.boot,
        world.finish_resync_half,
    ]
    return usual * 4 + faults


def walk(chance: random.Random) -> World:
    """One random history. Raises AssertionError with its story."""
    world = started_pair(
        World(
            preferred=chance.choice((None, *NAMES)),
            arbiter=chance.random() < 0.4,
            vips=chance.random() < 0.5,
        )
    )
    moves = moves_of(world, chance)
    for _ in range(MOVES):
        node = world.nodes[chance.choice(NAMES)]
        chance.choice(moves)(node)
        world.check()
    assert world.calm(), world.tell_story("does not settle")
    assert world.acknowledged <= world.nodes[NAMES[0]].writes
    assert world.acknowledged <= world.nodes[NAMES[1]].writes
    return world


@pytest.mark.parametrize("block", range(8))
def test_random_faults_never_make_two_writers_nor_lose_a_write(block: int) -> None:
    for seed in range(block * WALKS, (block + 1) * WALKS):
        try:
            walk(random.Random(seed))
        except AssertionError as err:
            raise AssertionError(f"seed {seed}: {err}") from err
