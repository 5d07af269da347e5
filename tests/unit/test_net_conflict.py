# SPDX-License-Identifier: Apache-2.0
"""Another machine has the address: before it is taken, and while it is held. Real kernels
on a real cable."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from haoperator.net.defence import DEFEND_INTERVAL, OVER_SECONDS, Defence
from haoperator.net.vacancy import PATIENCE_SECONDS, QUIET_SECONDS
from tests.unit.private_host import TWO_VIPS, PrivateHost, ended, private_host, until
from tests.unit.stations import Station, line, mac, station

ADDRESSES = {"four": "10.0.0.100/24", "six": "fd00::64/64"}
BOTH = pytest.mark.parametrize("name", ADDRESSES)

# Every frame of ARP and of neighbour discovery: when it came, and what it is.
SNIFFER = """
import socket, time
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
sock.bind(("eth0", 3))
print("listening")
while True:
    frame, (_, _, direction, *_) = sock.recvfrom(2000)
    if direction == 4:  # our own
        continue
    if frame[12:14] == b"\\x08\\x06":
        kind = "probe" if frame[28:32] == bytes(4) else "claim"
    elif frame[12:14] == b"\\x86\\xdd" and frame[20] == 58 and frame[54] in (135, 136):
        kind = "probe" if frame[54] == 135 else "claim"
    else:
        continue
    print(time.monotonic(), kind)
"""

CLAIMER = """
import socket, sys, time
from haoperator.lean.resolution import announcement
address, mac, seconds = sys.argv[1:]
packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sock.bind(("eth0", 0))
end = time.monotonic() + float(seconds)
while time.monotonic() < end:
    for frame in announcement(packed, bytes.fromhex(mac.replace(":", ""))):
        sock.send(frame)
    time.sleep(0.05)
print("done")
"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[PrivateHost]:
    with private_host(tmp_path, TWO_VIPS) as made:
        yield made


@pytest.fixture
def other(host: PrivateHost) -> Iterator[Station]:
    """A machine at the other end of the host's v0."""
    with station() as made:
        cable = f"ip link add v0 type veth peer name eth0 netns {made.pid}"
        host.run("sh", "-c", f"{cable} && ip link set v0 up")
        made.ip("link set eth0 up")
        until(lambda: "LOWER_UP" in made.run("ip", "link", "show", "eth0"), "no carrier")
        yield made


@contextlib.contextmanager
def vip(host: PrivateHost, name: str) -> Iterator[subprocess.Popen[str]]:
    with host.program("haoperator.net.__main__", name) as process:
        try:
            yield process
        finally:
            process.kill()


def holds(host: PrivateHost, name: str) -> bool:
    return ADDRESSES[name] in host.run("ip", "-o", "address", "show", "dev", "v0")


def occupy(other: Station, name: str) -> None:
    other.ip(f"address add {ADDRESSES[name]} dev eth0{' nodad' if name == 'six' else ''}")


@contextlib.contextmanager
def hearing(other: Station) -> Iterator[subprocess.Popen[str]]:
    with other.python(SNIFFER) as sniffer:
        assert line(sniffer) == "listening"
        yield sniffer


def next_frame(sniffer: subprocess.Popen[str], kind: str) -> float:
    """When the next one of this kind came."""
    while True:
        at, what = line(sniffer).split()
        if what == kind:
            return float(at)


@BOTH
def test_vacant_address_costs_two_probes_and_a_twentieth_of_a_second(
    host: PrivateHost, other: Station, name: str
) -> None:
    apart: list[float] = []
    took: list[float] = []
    with hearing(other) as sniffer:
        while len(took) < 5:  # any of them may meet a busy machine
            with vip(host, name) as process:
                probes = [next_frame(sniffer, "probe") for _ in range(2)]
                taken = next_frame(sniffer, "claim")
                process.kill()
            host.run("ip", "address", "del", ADDRESSES[name], "dev", "v0")
            apart.append(probes[1] - probes[0])
            took.append(taken - probes[0])
    print(f"{name}: {sorted(took)} s from the first probe to the announcement")
    assert max(apart) > QUIET_SECONDS / 2 - 0.01
    assert max(took) > QUIET_SECONDS - 0.01
    assert min(took) < 3 * QUIET_SECONDS


@BOTH
def test_address_that_another_machine_keeps_is_not_taken_and_its_mac_is_named(
    host: PrivateHost, other: Station, name: str
) -> None:
    occupy(other, name)
    started = time.monotonic()
    with vip(host, name) as process:
        code, errors = ended(process)
    assert code == 69
    assert f"not taken: {mac(other)} has this address" in errors
    assert time.monotonic() - started > PATIENCE_SECONDS
    assert not holds(host, name)
    assert not [said for _, said in host.manager.said if said == "READY=1"]


@BOTH
def test_address_that_is_just_being_given_back_is_waited_for(
    host: PrivateHost, other: Station, name: str
) -> None:
    occupy(other, name)
    with hearing(other) as sniffer, vip(host, name):
        next_frame(sniffer, "probe")
        time.sleep(0.5)  # nothing tells that it is waited for
        assert not holds(host, name)
        other.ip(f"address del {ADDRESSES[name]} dev eth0")
        gone = time.monotonic()
        assert host.manager.hear("READY=1") - gone < PATIENCE_SECONDS
        assert holds(host, name)


def test_stop_ends_the_wait_for_an_address(host: PrivateHost, other: Station) -> None:
    occupy(other, "four")
    with hearing(other) as sniffer, vip(host, "four") as process:
        next_frame(sniffer, "probe")
        process.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        code, errors = ended(process)
        assert code == 0, errors
        assert time.monotonic() - asked < 1.0
    assert not holds(host, "four")


@pytest.mark.parametrize("name", ["four"])  # it takes its time; the next one has the other
def test_conflict_is_told_once_defended_seldom_and_over_when_it_is(
    host: PrivateHost, other: Station, name: str
) -> None:
    foreign = "02:00:00:00:00:99"
    with vip(host, name) as process:
        host.manager.hear("READY=1")
        with hearing(other) as sniffer:
            burst = [next_frame(sniffer, "claim")]
            while burst[-1] - burst[0] < 0.6:
                burst.append(next_frame(sniffer, "claim"))
        host.manager.hear("WATCHDOG=1")
        address = ADDRESSES[name].partition("/")[0]
        with hearing(other) as sniffer, other.python(CLAIMER, address, foreign, "3") as claimer:
            began = host.manager.hear(f"STATUS={address} on v0: conflict with {foreign}")
            assert line(claimer) == "done"
            ceased = time.monotonic()
            host.manager.forget()
            over = host.manager.hear(f"STATUS={address} on v0", patience=20.0)
            assert OVER_SECONDS - 1.0 < over - ceased < OVER_SECONDS + 1.5
            first = next_frame(sniffer, "claim")
            assert first - began < 1.0
            second = next_frame(sniffer, "claim")
            while second - first < 0.1:  # the same announcement in its other form
                second = next_frame(sniffer, "claim")
            assert DEFEND_INTERVAL - 0.1 < second - first < DEFEND_INTERVAL + 1.0
        assert holds(host, name)
        process.send_signal(signal.SIGTERM)
        code, errors = ended(process)
        assert code == 0
        assert len(re.findall(f"conflict: {foreign} has this address too", errors)) == 1
        assert errors.count("the conflict is over") == 1


@pytest.mark.parametrize("name", ["six"])
def test_machine_that_has_it_silently_is_found_by_asking(
    host: PrivateHost, other: Station, name: str
) -> None:
    with vip(host, name):
        host.manager.hear("READY=1")
        occupy(other, name)
        address = ADDRESSES[name].partition("/")[0]
        wanted = f"STATUS={address} on v0: conflict with {mac(other)}"
        host.manager.hear(wanted, patience=15.0)


def test_defence_is_limited_whoever_claims() -> None:
    defence = Defence()
    sent = []
    for tenth in range(500):
        now = 100 + tenth / 10
        assert defence.claimed(bytes([2, 0, 0, 0, 0, tenth % 2]), now) == (tenth < 2)
        if defence.due(now):
            defence.announced(now)
            sent.append(now)
    assert sent == [100, 110, 120, 130, 140]
    assert not defence.over(150)
    assert defence.over(160)
    assert not defence.over(161)
    assert defence.claimed(bytes(6), 162)
