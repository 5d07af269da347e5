# SPDX-License-Identifier: Apache-2.0
"""The heartbeat process for real: UDP on loopback, a private bus for each node."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from haoperator.heartbeat.packet import NOBODY
from tests.unit.heartbeat_nodes import (
    BEAT,
    DETECT,
    KEY,
    PATIENCE,
    Impostor,
    Node,
    Segment,
    end,
    free_segment,
    running,
    start_bus,
    until,
)


@pytest.fixture
def segment() -> Segment:
    return free_segment()


@pytest.fixture
def impostors(segment: Segment) -> Iterator[Callable[..., Impostor]]:
    made: list[Impostor] = []

    def make(key: bytes = KEY) -> Impostor:
        made.append(Impostor(segment, key))
        return made[-1]

    yield make
    for impostor in made:
        impostor.close()


def test_two_nodes_hear_each_other_and_publish_at_once(segment: Segment, tmp_path: Path) -> None:
    async def story() -> None:
        async with running("node-a", segment, tmp_path) as a:
            await a.until("get_witness", "reachable")
            assert await a.interface.get_peer_reachable() is False
            async with running("node-b", segment, tmp_path) as b:
                for node in (a, b):
                    await node.until("get_peer_reachable", True)
                    await node.until("get_links", {"link0": True, "link1": True})
                a.silent.clear()  # b may have taken its time to start
                assert await a.interface.get_peer_status() == ""
                told = time.monotonic()
                await b.interface.call_publish('{"phase":"primary"}', 0)
                await until(lambda: any("primary" in t for _, t in a.heard), "not published")
                assert a.heard[-1][0] - told < BEAT / 2  # at once, not with the next beat
                with pytest.raises(Exception, match="at most 1200"):
                    await b.interface.call_publish("x" * 1201, 0)
                assert not a.silent

    asyncio.run(story())


def test_status_that_is_not_repeated_is_withdrawn_and_the_node_is_still_felt(
    segment: Segment, tmp_path: Path
) -> None:
    lifetime = 1.0

    async def story() -> None:
        async with (
            running("node-a", segment, tmp_path) as a,
            running("node-b", segment, tmp_path) as b,
        ):
            for node in (a, b):
                await node.until("get_peer_reachable", True)
            for _ in range(12):
                await b.interface.call_publish("alive", int(lifetime * 1e6))
                told = time.monotonic()
                await asyncio.sleep(lifetime / 8)
            assert await a.interface.get_peer_status() == "alive"
            gone = await a.until("get_peer_status", "")
            assert lifetime - BEAT < gone - told < lifetime + 1
            assert a.heard[-1][1] == ""
            assert await a.interface.get_peer_reachable() is True
            await b.interface.call_publish("back", 0)
            await a.until("get_peer_status", "back")

    asyncio.run(story())


def test_evidence_has_an_age_for_each_link_and_witness(segment: Segment, tmp_path: Path) -> None:
    async def evidence(node: Node) -> tuple[list[object], list[object]]:
        told = json.loads(await node.interface.get_evidence())
        return [link["age"] for link in told["links"]], told["witnesses"]

    async def story() -> None:
        async with running("node-a", segment, tmp_path) as a:
            await a.until("get_witness", "reachable")
            told = json.loads(await a.interface.get_evidence())
            assert [(link["name"], link["address"], link["age"]) for link in told["links"]] == [
                (f"link{number}", pair[1], None) for number, pair in enumerate(segment.pairs)
            ]
            (witness,) = told["witnesses"]
            assert (witness["kind"], witness["target"]) == ("ping", "127.0.0.1")
            assert 0 <= witness["age"] < PATIENCE
            async with running("node-b", segment, tmp_path):
                await a.until("get_links", {"link0": True, "link1": True})
                ages, _ = await evidence(a)
                assert all(isinstance(age, float) and 0 <= age < PATIENCE for age in ages)
            before, _ = await evidence(a)
            after, _ = await evidence(a)
            assert all(a < b for a, b in zip(before, after, strict=True))  # type: ignore[operator]

    asyncio.run(story())


def test_evidence_is_said_to_be_read_not_announced(segment: Segment, tmp_path: Path) -> None:
    async def story() -> None:
        async with running("node-a", segment, tmp_path) as a:
            tree = ElementTree.fromstring(await a.introspect())
            annotated = tree.findall(
                ".//property[@name='Evidence']/annotation"
                "[@name='org.freedesktop.DBus.Property.EmitsChangedSignal'][@value='false']"
            )
            assert len(annotated) == 1
            assert len(tree.findall(".//annotation")) == 1

    asyncio.run(story())


def test_stopped_peer_is_silent_in_time_and_resumed_peer_accuses_nobody(
    segment: Segment, tmp_path: Path
) -> None:
    async def story() -> None:
        async with (
            running("node-a", segment, tmp_path) as a,
            running("node-b", segment, tmp_path) as b,
        ):
            for node in (a, b):
                await node.until("get_peer_reachable", True)
                node.silent.clear()  # the other may have taken its time to start
            b.process.send_signal(signal.SIGSTOP)
            stopped = time.monotonic()
            await until(lambda: bool(a.silent), "silence not told")
            assert DETECT - BEAT - 0.05 < a.silent[0] - stopped < DETECT + 0.1
            await a.until("get_links", {"link0": False, "link1": False})
            await a.until("get_peer_is_silent", True)
            b.process.send_signal(signal.SIGCONT)
            await a.until("get_peer_reachable", True)
            await a.until("get_peer_is_silent", False)
            # b stood still for longer than `detect`; a lived all the time.
            await b.interface.call_publish("after", 0)
            await until(lambda: any(t == "after" for _, t in a.heard), "b does not go on")
            assert not b.silent
            assert len(a.silent) == 1

    asyncio.run(story())


def test_silence_is_timed_from_the_last_packet_on_any_link(
    segment: Segment, tmp_path: Path, impostors: Callable[..., Impostor]
) -> None:
    async def story() -> None:
        async with running("node-a", segment, tmp_path) as a:
            peer = impostors()
            await peer.introduce(a)
            late = []
            for round_ in range(5):
                a.silent.clear()
                peer.say("both")
                await a.until("get_peer_reachable", True)
                peer.say("one", links=(round_ % 2,))
                last = time.monotonic()
                await until(lambda: bool(a.silent), "silence not told")
                late.append(a.silent[0] - last - DETECT)
            assert min(late) > -0.005, late
            assert sorted(late)[2] < 0.02, late  # one of them may meet a busy machine
            assert max(late) < 0.1, late

    asyncio.run(story())


def test_silence_is_told_again_after_a_copy_that_came_late_on_another_link(
    segment: Segment, tmp_path: Path, impostors: Callable[..., Impostor]
) -> None:
    async def story() -> None:
        async with running("node-a", segment, tmp_path) as a:
            peer = impostors()
            await peer.introduce(a)
            peer.say("last word", links=(0,))
            await until(lambda: bool(a.silent), "silence not told")
            a.silent.clear()
            a.heard.clear()
            peer.sequence -= 1  # what it said last, on a link that held it back
            peer.say("last word", links=(1,))
            await until(lambda: bool(a.heard), "not heard again")
            peer.say("alive")
            await until(lambda: bool(a.silent), "a second silence is not told")

    asyncio.run(story())


def test_lost_packets_and_a_lost_link_are_no_silence(
    segment: Segment, tmp_path: Path, impostors: Callable[..., Impostor]
) -> None:
    async def story() -> None:
        async with running("node-a", segment, tmp_path) as a:
            peer = impostors()
            await peer.introduce(a)
            beats = 0
            while beats < 15:
                await until(lambda: bool(peer.hear()), "node-a does not beat")
                beats += 1
                if beats % 3 == 0:  # two of three are lost, on one link all of them
                    peer.say("hello", links=(1,))
            assert not a.silent
            assert await a.interface.get_links() == {"link0": False, "link1": True}

    asyncio.run(story())


def test_recordings_and_garbage_keep_nobody_alive(
    segment: Segment, tmp_path: Path, impostors: Callable[..., Impostor]
) -> None:
    async def story() -> None:
        async with running("node-a", segment, tmp_path) as a:
            peer = impostors()
            await peer.introduce(a, "first life")
            peer.say("first life")
            recorded = list(peer.sent)
            peer.close()
            second = impostors()
            await second.introduce(a, "second life")
            # The second life's last word; then somebody plays all that both ever said.
            second.say("last word", echo=NOBODY)
            recorded += second.sent
            last = time.monotonic()
            while not a.silent:
                assert time.monotonic() < last + DETECT + 0.3, "a recording counted"
                for link, datagram in recorded:
                    second.raw(link, datagram)
                    second.raw(link, os.urandom(90))
                    second.raw(1 - link, datagram)
                await asyncio.sleep(BEAT / 2)
            assert await a.interface.get_peer_status() == "last word"

    asyncio.run(story())


def test_restarted_node_refuses_what_was_recorded_before(
    segment: Segment, tmp_path: Path, impostors: Callable[..., Impostor]
) -> None:
    async def story() -> None:
        peer = impostors()
        async with running("node-a", segment, tmp_path) as a:
            await peer.introduce(a)
        async with running("node-a", segment, tmp_path) as a:
            for _ in range(10):
                await until(lambda: any(s.recv(2000) for s in _readable(peer)), "no beat")
                for link, datagram in list(peer.sent):
                    peer.raw(link, datagram)
            assert await a.interface.get_peer_reachable() is False
            assert not a.heard

    asyncio.run(story())


def _readable(peer: Impostor) -> list[socket.socket]:
    return select.select(peer.sockets, [], [], 0)[0]


def test_wrong_key_is_never_heard(
    segment: Segment, tmp_path: Path, impostors: Callable[..., Impostor]
) -> None:
    async def story() -> None:
        async with running("node-a", segment, tmp_path) as a:
            peer = impostors(b"x" * 32)
            for _ in range(10):
                await until(lambda: any(s.recv(2000) for s in _readable(peer)), "no beat")
                peer.say("let me in", echo=b"anything")
            assert await a.interface.get_peer_reachable() is False

    asyncio.run(story())


def test_missing_address_stops_no_other_link(segment: Segment, tmp_path: Path) -> None:
    async def story() -> None:
        half = Segment(segment.port, [segment.pairs[0], ("192.0.2.1", "192.0.2.2")])
        async with (
            running("node-a", half, tmp_path) as a,
            running("node-b", half, tmp_path) as b,
        ):
            for node in (a, b):
                await node.until("get_links", {"link0": True, "link1": False})

    asyncio.run(story())


def test_restart_of_the_bus_delays_no_beat(
    segment: Segment, tmp_path: Path, impostors: Callable[..., Impostor]
) -> None:
    async def story() -> None:
        async with running("node-a", segment, tmp_path) as a:
            peer = impostors()
            await peer.introduce(a)
            await a.interface.call_publish("kept", 0)
            end(a.bus.process)
            for _ in range(8):
                await until(lambda: bool(peer.hear()), "node-a stopped beating without a bus")
                peer.say("still here")
            a.bus = start_bus(tmp_path / "node-a")
            await a.disconnect()
            await a.connect()
            assert await a.interface.get_peer_status() == "still here"
            assert [p.status for p in peer.hear()][-1:] in ([b"kept"], [])

    asyncio.run(story())
