# SPDX-License-Identifier: Apache-2.0
"""The stream moves to the next link when the one that carries it dies, without a failover."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from functools import partial

import pytest

from tests.replica.pair import Pair, wait_for
from tests.replica.trees import assert_equal_trees
from tests.replica.writer import Writer, lines_in

ONE, TWO = "127.0.77", "127.0.78"
FILTER = """
table inet links {
  chain cut { type filter hook output priority 0; policy accept; }
}
"""


class Network:
    """A network namespace in which links can be cut; the pair lives in it."""

    def __init__(self, name: str) -> None:
        self.path = f"/run/netns/{name}"
        self._name = name
        self._run("ip", "netns", "add", name)
        self._run("ip", "-n", name, "link", "set", "lo", "up")
        self._nft(FILTER)

    @property
    def prefix(self) -> list[str]:
        return ["nsenter", f"--net={self.path}", "--"]

    def cut(self, link: str) -> None:
        """Every packet is lost from now on, and nobody is told."""
        self._nft(f"add rule inet links cut ip daddr {link}.0/24 drop")

    def heal(self) -> None:
        self._nft("flush chain inet links cut")

    def carrier(self, pair: Pair) -> set[str]:
        """The link that node a is connected over."""
        state = ["ss", "-Htn", "state", "established", "dport", "=", f":{pair.port}"]
        lines = self._run(*self.prefix, *state).splitlines()
        return {line.split()[3].rsplit(".", 1)[0] for line in lines}

    def is_left(self, pair: Pair, link: str) -> bool:
        return link not in self.carrier(pair)

    def remove(self) -> None:
        self._run("ip", "netns", "del", self._name)

    def _nft(self, rules: str) -> None:
        self._run(*self.prefix, "nft", "-f", "-", said=rules)

    @staticmethod
    def _run(*command: str, said: str = "") -> str:
        done = subprocess.run(
            command, check=True, input=said, stdout=subprocess.PIPE, text=True, timeout=20
        )
        return done.stdout


@pytest.fixture
def network(pair: Pair) -> Iterator[Network]:
    """The nodes of the pair have two links in it."""
    network = Network(f"haoperator-{os.getpid()}")
    try:
        for node, own, peer in ((pair.a, 1, 2), (pair.b, 2, 1)):
            node.prefix = network.prefix
            node.settings["links"] = [
                ["one", f"{ONE}.{own}", f"{ONE}.{peer}"],
                ["two", f"{TWO}.{own}", f"{TWO}.{peer}"],
            ]
        yield network
        pair.stop()
    finally:
        network.remove()


def test_next_link_takes_over_when_the_first_dies(pair: Pair, network: Network) -> None:
    pair.replicate()
    generation = pair.a.record["generation"]
    assert network.carrier(pair) == {ONE}
    with Writer(pair.a.path / "log") as writer:
        for dead, alive in ((ONE, TWO), (TWO, ONE)):
            writer.advances()
            network.heal()
            network.cut(dead)
            wait_for(partial(network.is_left, pair, dead), f"{dead} is given up")
            pair.a.wait_stream("synced")
            assert network.carrier(pair) == {alive}
            writer.advances()
    assert writer.error == ""
    assert lines_in(pair.b.backing / "log") >= writer.acknowledged
    assert_equal_trees(pair.a.backing, pair.b.backing)
    assert pair.a.record["generation"] == pair.b.record["generation"] == generation
    assert (pair.a.state["role"], pair.b.state["role"]) == ("primary", "secondary")


def test_first_link_that_works_is_taken_from_the_start(pair: Pair, network: Network) -> None:
    network.cut(ONE)
    pair.replicate()
    assert network.carrier(pair) == {TWO}


def test_link_whose_address_is_missing_is_passed_over(pair: Pair) -> None:
    pair.a.settings["links"].insert(0, ["gone", "192.0.2.1", "192.0.2.2"])
    pair.replicate()


def test_link_that_connects_and_carries_nothing_is_passed_over(pair: Pair) -> None:
    """Something that accepts and is silent: a dead peer behind a proxy, say."""
    with socket.create_server(("127.0.77.9", pair.port)):
        pair.a.settings["links"].insert(0, ["silent", "127.0.77.1", "127.0.77.9"])
        pair.replicate()
