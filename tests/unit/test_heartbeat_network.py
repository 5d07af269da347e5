# SPDX-License-Identifier: Apache-2.0
"""Heartbeats over IPv4 and IPv6 on a real network that misbehaves, at the fast timing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.unit.heartbeat_network import LINKS, Host, two_hosts
from tests.unit.heartbeat_nodes import Node, Segment, running, until

DETECT, BEAT = 0.3, 0.05
REAL_TIME = ("chrt", "--rr", "20")
"""As ha-heartbeat.service runs."""


@asynccontextmanager
async def pair(where: Path) -> AsyncIterator[tuple[Host, Host, Node, Node]]:
    segment = Segment(7410, [(a, b) for _, a, b in LINKS])
    with two_hosts() as (host_a, host_b):
        prefix_a, prefix_b = ((*host.enter, *REAL_TIME) for host in (host_a, host_b))
        async with (
            running("node-a", segment, where, detect=DETECT, beat=BEAT, prefix=prefix_a) as a,
            running("node-b", segment, where, detect=DETECT, beat=BEAT, prefix=prefix_b) as b,
        ):
            for node in (a, b):
                await node.until("get_links", {"link0": True, "link1": True})
                node.silent.clear()  # the other may have taken its time to start
            yield host_a, host_b, a, b


def test_node_is_heard_while_one_link_of_either_family_works(tmp_path: Path) -> None:
    async def story() -> None:
        async with pair(tmp_path) as (host_a, _, a, b):
            for link, other in (("link0", "link1"), ("link1", "link0")):
                host_a.run("ip", "link", "set", link, "down")
                for node in (a, b):
                    await node.until("get_links", {link: False, other: True})
                host_a.run("ip", "link", "set", link, "up")
                if link == "link1":  # its address went with it
                    address = f"{LINKS[1][1]}/64"
                    host_a.run("ip", "address", "add", address, "dev", link, "nodad")
                for node in (a, b):
                    await node.until("get_links", {link: True, other: True})
            assert not a.silent
            assert not b.silent

    asyncio.run(story())


def test_lost_late_and_doubled_packets_are_no_silence(tmp_path: Path) -> None:
    """A third of all packets is lost, on each link apart. Those of five beats in a row on two
    links, once in 59,000; and a silence takes six."""

    async def story() -> None:
        async with pair(tmp_path) as (host_a, host_b, a, b):
            for host in (host_a, host_b):
                host.lose("numgen random mod 3 0")
            with host_a.doubling(), host_b.doubling():
                for number in range(30):
                    status = f"status {number}"
                    await a.interface.call_publish(status, 0)
                    await b.until("get_peer_status", status)
                    await asyncio.sleep(BEAT)
            assert [text for _, text in b.heard if text] == [f"status {n}" for n in range(30)]
            assert not a.silent
            assert not b.silent

    asyncio.run(story())


def test_cut_of_both_links_is_silence_within_detect_and_a_beat(tmp_path: Path) -> None:
    async def story() -> None:
        async with pair(tmp_path) as (_, host_b, a, b):
            host_b.lose()
            cut = time.monotonic()
            await until(lambda: bool(b.silent), "the cut is not noticed")
            assert DETECT - 2 * BEAT - 0.05 < b.silent[0] - cut < DETECT + 0.1
            assert not a.silent  # the other direction works

    asyncio.run(story())
