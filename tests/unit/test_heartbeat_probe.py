# SPDX-License-Identifier: Apache-2.0
"""The probe of the VIPs, on a real segment: who answers, and what is no answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.heartbeat_nodes import Segment, running
from tests.unit.stations import Station, line, segment

DETECT = 0.8
FRESHNESS = DETECT / 2
PERIOD = FRESHNESS / 4
ADDRESSES = {"four": "10.0.0.100/24", "six": "fd00::64/64"}

PROBER = """
import select, sys, time
from ipaddress import ip_interface
from haoperator.heartbeat.probe import VipProbe
from haoperator.heartbeat.witness import period
from tomlconfig import Vip
detect, *vips = sys.argv[1:]
vips = [Vip(v, ip_interface(v.split("@")[0]), v.split("@")[1]) for v in vips]
probe, said, due = VipProbe(vips, float(detect), lambda: None), "none", 0.0
assert probe.reply(time.monotonic()) == said
print(time.monotonic(), said)
while True:
    now = time.monotonic()
    if now >= due:
        probe.ask(now)
        due = now + period(float(detect))
    select.select([probe], [], [], max(0, due - time.monotonic()))
    now = time.monotonic()
    probe.drain(now)
    reply = str(probe.reply(now))
    if reply != said:
        said = reply
        print(now, reply)
"""

COUNTER = """
import socket, sys
wanted, seconds = bytes.fromhex(sys.argv[1]), float(sys.argv[2])
import time
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
sock.bind(("eth0", 3))
end, count = time.monotonic() + seconds, 0
while (left := end - time.monotonic()) > 0:
    sock.settimeout(left)
    try:
        count += wanted in sock.recv(2000)
    except TimeoutError:
        pass
print(count)
"""


@pytest.fixture
def stations() -> Iterator[list[Station]]:
    """The switch; this node; the primary."""
    with segment(2) as made:
        yield made


@contextlib.contextmanager
def probing(node: Station, *vips: str) -> Iterator[Replies]:
    with node.python(PROBER, str(DETECT), *(f"{vip}@eth0" for vip in vips)) as process:
        yield Replies(process)


class Replies:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.at = 0.0

    def next(self) -> str:
        """The next change of the level; `at` is when it was seen."""
        at, reply = line(self._process).split()
        self.at = float(at)
        return reply


def holds(station: Station, address: str) -> None:
    nodad = " nodad" if ":" in address else ""
    station.ip(f"address add {address} dev eth0{nodad}")


@pytest.mark.parametrize("kind", ADDRESSES)
def test_holder_answers_and_its_silence_is_told_in_time(stations: list[Station], kind: str) -> None:
    _, node, primary = stations
    holds(primary, ADDRESSES[kind])
    with probing(node, ADDRESSES[kind]) as replies:
        assert [replies.next(), replies.next()] == ["none", "answered"]
        primary.ip("link set eth0 down")
        down = time.monotonic()
        # A carrier that is lost on the primary's side only: the switch keeps ours up.
        assert replies.next() == "unanswered"
        # Before the heartbeat gives the peer up, so that it holds up no takeover.
        assert FRESHNESS - PERIOD - 0.05 < replies.at - down < DETECT
        primary.ip("link set eth0 up")
        if kind == "six":
            holds(primary, ADDRESSES[kind])
        assert replies.next() == "answered"


@pytest.mark.parametrize("kind", ADDRESSES)
def test_silence_counts_only_when_it_was_asked_into_for_long_enough(
    stations: list[Station], kind: str
) -> None:
    _, node, _ = stations
    began = time.monotonic()
    with probing(node, ADDRESSES[kind]) as replies:
        assert replies.next() == "none"
        assert replies.next() == "unanswered"
        assert replies.at - began > FRESHNESS


@pytest.mark.parametrize("kind", ADDRESSES)
def test_own_address_is_no_evidence(stations: list[Station], kind: str) -> None:
    _, node, primary = stations
    holds(primary, ADDRESSES[kind])
    with probing(node, ADDRESSES[kind]) as replies:
        assert [replies.next(), replies.next()] == ["none", "answered"]
        holds(node, ADDRESSES[kind])
        assert replies.next() == "none"
        node.ip(f"address del {ADDRESSES[kind]} dev eth0")
        assert replies.next() == "answered"


def test_interface_that_is_missing_down_or_made_anew_is_lived_through(
    stations: list[Station],
) -> None:
    switch, node, primary = stations
    for address in ADDRESSES.values():
        holds(primary, address)
    node.ip("link del eth0")
    with probing(node, *ADDRESSES.values()) as replies:
        assert replies.next() == "none"
        for _ in range(2):
            switch.ip(
                f"link add port0 type veth peer name eth0 netns {node.pid}",
                "link set port0 master lan up",
            )
            node.ip("link set eth0 up")
            assert replies.next() == "answered"
            node.ip("link set eth0 down")
            assert replies.next() == "none"
            node.ip("link set eth0 up")
            assert replies.next() == "answered"
            switch.ip("link set port0 down")  # the carrier
            assert replies.next() == "none"
            switch.ip("link set port0 up")
            assert replies.next() == "answered"
            node.ip("link del eth0")
            assert replies.next() == "none"


def test_one_vip_that_answers_is_enough_and_asked_alone(stations: list[Station]) -> None:
    _, node, primary = stations
    holds(primary, ADDRESSES["six"])
    with probing(node, *ADDRESSES.values()) as replies:
        assert [replies.next(), replies.next()] == ["none", "answered"]
        with primary.python(COUNTER, "0a000064", "1") as counter:
            asked_for_the_other = int(line(counter))
        assert asked_for_the_other <= 1
        holds(primary, ADDRESSES["four"])
        primary.ip(f"address del {ADDRESSES['six']} dev eth0")
        with primary.python(COUNTER, "0a000064", "1") as counter:
            assert int(line(counter)) >= 6
        primary.ip("link set eth0 down")
        # Never unanswered before that, although one address moved to another.
        assert replies.next() == "unanswered"


def test_daemon_tells_the_bus(stations: list[Station], tmp_path: Path) -> None:
    _, node, primary = stations
    places = Segment(
        17410,
        [("127.0.0.2", "127.0.0.3")],
        inside=node.command(),
        vips=[f"{ADDRESSES['four']}@eth0", f"{ADDRESSES['six']}@absent0"],
    )

    async def story() -> None:
        async with running("node-a", places, tmp_path) as a:
            told: list[str] = []
            assert a.connection is not None
            properties = await a.properties()
            properties.on_properties_changed(
                lambda _, changed, __: told.extend(
                    [changed["VipProbe"].value] if "VipProbe" in changed else []
                )
            )
            await a.until("get_vip_probe", "unanswered")
            holds(primary, ADDRESSES["four"])
            await a.until("get_vip_probe", "answered")
            holds(node, ADDRESSES["four"])
            await a.until("get_vip_probe", "none")
            assert told[-2:] == ["answered", "none"]
            four, absent = json.loads(await a.interface.get_evidence())["vips"]
            assert 0 < four["age"] < 5
            assert absent == {"name": "vip1", "age": None}

    asyncio.run(story())
