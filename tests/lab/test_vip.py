# SPDX-License-Identifier: Apache-2.0
"""The virtual IP on real nodes: what the standby hears of it, who is told that it goes, and
what its network's failure leads to."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from haoperator.net.vacancy import LOST_SECONDS

from .cluster import DETECT, HEARTBEAT, Pair
from .node import Node
from .waiting import until

CLIENT = """
import socket, sys
socks = [socket.create_connection((host, 8080), 5) for host in sys.argv[1:]]
print("connected", flush=True)
for host, sock in zip(sys.argv[1:], socks):
    sock.settimeout(20)
    try:
        print(host, "closed" if not sock.recv(100) else "data", flush=True)
    except OSError as err:
        print(host, type(err).__name__, flush=True)
"""


def probe_of(node: Node) -> str:
    shown = node.exec("busctl", "--json=short", "get-property", *HEARTBEAT, "VipProbe")
    return str(json.loads(shown.stdout)["data"])


def test_standby_hears_the_primary_on_the_network_of_the_clients(pair: Pair) -> None:
    primary, standby = pair.primary, pair.standby
    until(lambda: probe_of(standby) == "answered", "the VIP answers the standby", within=5)
    until(lambda: probe_of(primary) == "none", "its own address tells it nothing", within=5)
    primary.power_cut()
    cut = time.monotonic()
    until(lambda: probe_of(standby) != "answered", "the dead do not answer", within=5)
    # Before the heartbeat gives the peer up: it must not hold up the takeover.
    assert time.monotonic() - cut < DETECT
    pair.wait({standby.name: "ALONE"}, within=20)
    primary.boot()
    pair.wait_healthy()
    until(lambda: probe_of(primary) == "answered", "and the other way round", within=5)


@pytest.fixture
def bystander(pair: Pair) -> Iterator[Node]:
    """The primary, with a container on port 8080 that the cluster knows nothing of."""
    node = pair.primary
    node.exec("docker", "run", "--detach", "--name", "bystander", "-p", "8080:80", "web:1")
    try:
        yield node
    finally:
        node.exec("docker", "rm", "--force", "bystander")


def test_swap_resets_the_clients_of_what_docker_passes_on(pair: Pair, bystander: Node) -> None:
    own = "10.0.0.1" if bystander.name == "node-a" else "10.0.0.2"
    command = pair.lab.in_client(sys.executable, "-c", CLIENT, "10.0.0.100", own)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "connected\n"
        pair.primary.exec("hactl", "swap")
        assert client.stdout.readline() == "10.0.0.100 ConnectionResetError\n"
        # Nothing was done to the other one: it lives until busybox's httpd has waited enough.
        assert client.stdout.readline() == f"{own} TimeoutError\n"
    pair.wait_healthy()
    told = bystander.journal("-u", "ha-vip@front", "-o", "cat")
    assert "1 connections of clients reset" in told


def test_dead_network_of_the_clients_moves_the_role(pair: Pair) -> None:
    old, new = pair.primary, pair.standby
    old.exec("ip", "link", "set", "eth0", "down")
    down = time.monotonic()
    try:
        pair.wait({new.name: "PRIM", old.name: "SECOND"}, within=LOST_SECONDS + 20)
        until(lambda: pair.has_vip(new), "the VIP moved too", within=10)
        print(f"moved after {time.monotonic() - down:.3f} s")
        assert not pair.has_vip(old)
        told = old.journal("-u", "ha-vip@front", "-o", "cat")
        assert f"eth0 is down, for {LOST_SECONDS:g} s: given up here" in told
    finally:
        old.exec("ip", "link", "set", "eth0", "up")
        old.exec("ip", "route", "add", "default", "via", "10.0.0.254", check=False)


def test_machine_with_the_same_address_is_named(pair: Pair) -> None:
    """The witness takes it: it is found while the primary holds it, and nothing moves."""
    primary = pair.primary
    witness = ("ip", "-n", pair.lab.place.namespace("witness"), "address")
    change = ("10.0.0.100/32", "dev", "eth0")
    subprocess.run([*witness, "add", *change], check=True)
    try:
        shown = ("systemctl", "show", "ha-vip@front", "-p", "StatusText", "--value")
        until(
            lambda: "conflict with 02:00:00:00:00:fe" in primary.exec(*shown).stdout,
            "the conflict in STATUS=",
            within=20,
        )
        assert pair.healthy()
    finally:
        subprocess.run([*witness, "del", *change], check=True)
    until(
        lambda: primary.exec(*shown).stdout.strip() == "10.0.0.100 on eth0",
        "the conflict is over",
        within=30,
    )
