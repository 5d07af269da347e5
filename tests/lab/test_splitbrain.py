# SPDX-License-Identifier: Apache-2.0
"""A real split brain: all paths cut, no witness, both write; one yields, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .cluster import CONFIG, DATA, Pair
from .customer import customer
from .node import Node
from .trees import fill, tree_of
from .waiting import until

WITHOUT_WITNESS = CONFIG[: CONFIG.index("[witness]")]
BY_POLICY = f'{WITHOUT_WITNESS}[splitbrain]\nkeep = "former-primary"\n'
NOTE = f"{DATA}/note"
STALL = 1.0
"""Seconds that a client may wait while the other node is brought up."""


@pytest.fixture
def witnessless(pair: Pair) -> Iterator[Pair]:
    """Nobody to ask who is the isolated one."""
    pair.reconfigure(WITHOUT_WITNESS)
    try:
        yield pair
    finally:
        pair.lab.network.heal()
        for node in pair.nodes:
            for id_ in kept(node):
                node.exec("hactl", "splitbrain", "drop", id_, "--yes")
        pair.wait_healthy()
        pair.primary.exec("sh", "-c", f"rm -rf {DATA}/tree {DATA}/only-*")
        pair.reconfigure(CONFIG)


def compared(node: Node) -> str:
    """The id of the one branch that is set aside there, once only what differs is."""

    def one() -> str:
        listed = node.exec("hactl", "splitbrain", "list").stdout.splitlines()
        return listed[0].split()[0] if len(listed) == 1 and "differ" in listed[0] else ""

    return until(one, f"{node.name} keeps what differs", within=30)


def kept(node: Node) -> list[str]:
    """The ids of what is set aside there."""
    listed = node.exec("hactl", "splitbrain", "list").stdout.splitlines()
    return sorted({line.split()[0] for line in listed if not line.startswith("nothing")})


def divide(pair: Pair) -> None:
    """Both serve; each writes what the other one does not see."""
    primary, standby = pair.primary, pair.standby
    primary.exec("sh", "-c", f"printf 'one\\ntwo\\nthree\\n' >{NOTE}")
    primary.exec("sh", "-c", f"rm -rf {DATA}/tree {DATA}/only-*")
    fill(primary, f"{DATA}/tree", 8)
    pair.lab.network.cut(primary.name)
    pair.wait({primary.name: "ALONE", standby.name: "ALONE"}, within=30)
    for node in pair.nodes:
        node.exec("sh", "-c", f"sed -i s/two/{node.name}/ {NOTE}")
        node.exec("sh", "-c", f"echo {node.name} >{DATA}/only-{node.name}")
        node.exec("sh", "-c", f"echo {node.name} >>{DATA}/tree/big.bin")


def meet(pair: Pair, serving: Node) -> None:
    pair.lab.network.heal()
    other = pair.lab.other(serving)
    pair.wait({serving.name: "ALONE", other.name: "WAIT"}, within=30)
    until(
        lambda: all("split brain" in node.exec("hactl", "status").stdout for node in pair.nodes),
        "both nodes know of the split brain",
        within=30,
    )


def test_standby_yields_while_the_primary_serves_and_everything_can_be_had_back(
    witnessless: Pair, directory: Path
) -> None:
    pair = witnessless
    divide(pair)
    winner, loser = pair.lab.a, pair.lab.b  # the first by name goes on
    meet(pair, winner)
    for node in pair.nodes:
        told = node.exec("hactl", "status").stdout + node.exec("hactl", "why").stdout
        assert f"'hactl splitbrain yield' on {loser.name}: the data of {winner.name} wins" in told
        assert "split brain" in told
    assert loser.name in loser.exec("cat", NOTE).stdout, "nothing is overwritten"
    before = tree_of(loser, f"{DATA}/tree")

    with customer(pair.lab, directory / "client.log") as client:
        client.wait_acks(50)
        refused = loser.exec("hactl", "splitbrain", "yield", check=False)
        assert refused.returncode == 1
        assert f"What differs in {DATA} is set aside first: /srv/shop/" in refused.stdout
        assert "say --yes" in refused.stderr
        loser.exec("hactl", "splitbrain", "yield", "--yes")
        pair.wait({winner.name: "PRIM", loser.name: "SECOND"}, within=90)
        client.wait_acks(50)
        seen = client.seen()
        gap = seen.longest_gap(seen.acks[0], seen.acks[-1])
        assert gap[1] - gap[0] < STALL
        assert client.report()["lost"] == 0

    assert winner.name in loser.exec("cat", NOTE).stdout
    assert tree_of(winner, f"{DATA}/tree") == tree_of(loser, f"{DATA}/tree") != before
    id_ = compared(loser)
    assert not kept(winner)
    differing = loser.exec("hactl", "splitbrain", "diff", id_).stdout
    assert "content     data: tree/big.bin" in differing
    assert f"only kept   data: only-{loser.name}" in differing
    assert f"only here   data: only-{winner.name}" in differing
    lines = loser.exec("hactl", "splitbrain", "diff", id_, NOTE).stdout.splitlines()
    assert {f"-{loser.name}", f"+{winner.name}"} <= set(lines)

    there = f"{NOTE}.splitbrain-{id_}"
    refused = loser.exec("hactl", "splitbrain", "restore", id_, NOTE, check=False)
    assert refused.returncode == 1
    assert f"on {winner.name}: ssh {loser.name} hactl splitbrain restore" in refused.stderr
    printed = loser.exec("hactl", "splitbrain", "restore", id_, NOTE, "--to", "-").stdout
    assert printed == f"one\n{loser.name}\nthree\n"
    loser.exec("hactl", "swap")
    pair.wait({loser.name: "PRIM", winner.name: "SECOND"}, within=60)
    assert there in loser.exec("hactl", "splitbrain", "restore", id_, NOTE).stdout
    assert winner.exec("cat", there).stdout == printed, "it is replicated"

    loser.exec("hactl", "splitbrain", "drop", id_, "--yes")
    assert not kept(loser)
    hidden = loser.exec("sh", "-c", "ls -d /srv/shop/.haoperator-* || true", check=False).stdout
    assert not hidden.strip()


def test_primary_yields_and_hands_over_in_order(witnessless: Pair) -> None:
    pair = witnessless
    divide(pair)
    loser, winner = pair.lab.a, pair.lab.b
    meet(pair, loser)
    loser.exec("hactl", "splitbrain", "yield", "--yes")
    pair.wait({winner.name: "PRIM", loser.name: "SECOND"}, within=90)
    assert winner.name in loser.exec("cat", NOTE).stdout
    id_ = compared(loser)
    assert loser.exec("cat", f"{DATA}/only-{winner.name}").stdout.strip() == winner.name
    copy = loser.exec("hactl", "splitbrain", "restore", id_, f"only-{loser.name}", "--to", "-")
    assert copy.stdout.strip() == loser.name


def test_former_primary_wins_by_policy_and_the_loser_survives_a_power_cut(
    witnessless: Pair,
) -> None:
    pair = witnessless
    pair.reconfigure(BY_POLICY)
    former, other = pair.primary, pair.standby
    divide(pair)
    pair.lab.network.heal()
    until(
        lambda: pair.replication(other)["state"] == "resync" or pair.healthy(),
        "the resync begins by itself",
        within=60,
        hint=pair.explain,
    )
    other.power_cut()
    pair.wait({former.name: "ALONE"}, within=30)
    other.boot()
    pair.wait({former.name: "PRIM", other.name: "SECOND"}, within=90)
    assert former.name in other.exec("cat", NOTE).stdout
    id_ = compared(other)
    copy = other.exec("hactl", "splitbrain", "restore", id_, f"only-{other.name}", "--to", "-")
    assert copy.stdout.strip() == other.name
    refused = other.exec("hactl", "splitbrain", "yield", "--yes", check=False)
    assert "there is no split brain" in refused.stderr
