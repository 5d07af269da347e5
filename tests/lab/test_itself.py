# SPDX-License-Identifier: Apache-2.0
"""The lab can be trusted: what it calls a power cut or a cut cable is one.

On a small lab of its own, so that the cluster of the other scenarios is left alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from .lab import Lab
from .ledger import Ledger
from .place import Place
from .waiting import until


@pytest.fixture(scope="module")
def bare() -> Iterator[Lab]:
    place = Place.from_environment()
    name = f"{place.name}-itself"
    lab = Lab(dataclasses.replace(place, name=name, run=place.run.with_name(name)))
    lab.up(owned=True)
    yield lab
    lab.down()
    assert lab.status() == {"lab": "down"}
    assert not lab.place.disks.exists()


def test_a_power_cut_loses_what_was_not_synced_and_nothing_else(bare: Lab) -> None:
    bare.a.exec("sh", "-c", "echo kept >/srv/kept; sync /srv/kept; echo gone >/srv/gone")
    bare.a.power_cut()
    assert not bare.a.powered
    assert not bare.ping("10.0.0.1")
    bare.a.boot()
    assert bare.a.exec("cat", "/srv/kept").stdout == "kept\n"
    assert bare.a.exec("cat", "/srv/gone", check=False).stdout == ""


def test_a_dying_node_closes_no_connection(bare: Lab) -> None:
    """A power cut must not be told to the peer by a reset of its connections."""
    listener = (
        "import socket; s = socket.create_server(('', 5000)); c, _ = s.accept(); print(c.recv(1))"
    )
    bare.b.exec("systemd-run", "--unit=listener", "python3", "-uc", listener)
    until(lambda: "5000" in bare.b.exec("ss", "-Hltn").stdout, "a listener", within=10)
    talker = "import socket, time; s = socket.create_connection(('10.0.0.2', 5000)); time.sleep(99)"
    bare.a.exec("systemd-run", "python3", "-c", talker)
    connected = ("ss", "-Htn", "state", "established", "sport", "5000")
    until(lambda: bare.b.exec(*connected).stdout, "a connection", within=10)
    bare.a.power_cut()
    assert bare.b.exec(*connected).stdout
    bare.a.boot()
    bare.b.exec("systemctl", "stop", "listener")


@pytest.mark.parametrize(
    ("direction", "arrives"),
    [("in", (False, True)), ("out", (True, False)), ("both", (False,) * 2)],
)
def test_a_cable_is_cut_in_the_direction_asked_for(
    bare: Lab, direction: str, arrives: tuple[bool, bool]
) -> None:
    """Told by the counters of the devices: a ping needs both directions, always."""
    for node in (bare.a, bare.b):
        node.exec("ip", "neigh", "flush", "dev", "eth1")
    assert bare.ping("10.0.1.2", source="node-a", within=3)
    bare.network.cut("node-a", "direct", direction)  # type: ignore[arg-type]
    try:
        # Multicast needs no answer and no neighbour entry.
        got = tuple(heard(bare, sender, receiver) for sender, receiver in (("b", "a"), ("a", "b")))
        assert got == arrives
        assert bare.ping("10.0.0.2", source="node-a", within=3), "the other cable is cut too"
    finally:
        bare.network.heal()
    assert bare.ping("10.0.1.2", source="node-a", within=3)


def heard(lab: Lab, sender: str, receiver: str) -> bool:
    """Whether a broadcast of one node arrives at the other on the direct link."""
    count = ("cat", "/sys/class/net/eth1/statistics/rx_packets")
    before = int(lab.node(receiver).exec(*count).stdout)
    shout = (
        "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
        "s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1); "
        "[s.sendto(b'x', ('10.0.1.255', 9)) for _ in range(50)]"
    )
    lab.node(sender).exec("python3", "-c", shout, check=False)
    return int(lab.node(receiver).exec(*count).stdout) - before >= 50


def test_both_nodes_hold_the_same_images(bare: Lab) -> None:
    for node in bare.nodes.values():
        node.wait_active("docker.service")
    shown = (n.exec("docker", "images", "--no-trunc").stdout for n in bare.nodes.values())
    images = [sorted(text.splitlines()) for text in shown]
    assert any("redis-demo" in line for line in images[0])
    assert images[0] == images[1]


def test_a_container_writes_to_the_data_disk(bare: Lab) -> None:
    bare.a.wait_active("docker.service")
    bare.a.exec("mkdir", "-p", "/srv/probe")
    volume = ("-v", "/srv/probe:/data")
    bare.a.exec("docker", "run", "--rm", *volume, "web:1", "touch", "/data/file")
    assert "file" in bare.a.exec("ls", "/srv/probe").stdout
    assert bare.a.exec("findmnt", "-no", "FSTYPE", "-T", "/srv/probe").stdout.strip() == "ext4"


def test_leftovers_of_a_dead_run_are_found_and_removed(bare: Lab) -> None:
    """The ledger alone is enough: another process knows nothing else."""
    leaders = [node.leader for node in bare.nodes.values()]
    Ledger(bare.place.ledger).clear()
    assert not any(node.powered for node in bare.nodes.values())
    assert all(leader > 1 for leader in leaders)
    bare.up(owned=True)
    assert bare.ping("10.0.0.254", source="node-b", within=3)
