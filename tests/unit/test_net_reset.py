# SPDX-License-Identifier: Apache-2.0
"""When the VIP is given back, its clients get a reset: real TCP, on this node and through NAT."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.private_host import TWO_VIPS, PrivateHost, ended, private_host, until
from tests.unit.stations import Station, line, station

VIPS = {"four": "10.0.0.100", "six": "fd00::64"}
OWN = {"four": "10.0.0.1", "six": "fd00::1"}
"""Another address of the node, which must not be touched."""
BEHIND = {"four": "172.30.0.2", "six": "fd01::2"}
CLIENTS = 5

# Answers a word by itself, as long as it is asked; keeps every connection.
SERVER = """
import socket, threading
def serve(sock):
    while data := sock.recv(100):
        sock.sendall(data)
server = socket.create_server(("", 80), family=socket.AF_INET6, dualstack_ipv6=True)
print("listening")
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""

# Idle clients, each to tell how it ends; "talk" asks each of them for an answer.
CLIENT = """
import os, socket, sys, threading
def wait(number, sock):
    try:
        outcome = "closed" if not sock.recv(100) else "data"
    except ConnectionResetError:
        outcome = "reset"
    os.write(1, f"{number} {outcome}\\n".encode())  # a line in one piece
host, count = sys.argv[1], int(sys.argv[2])
socks = [socket.create_connection((host, 80), 5) for _ in range(count)]
for sock in socks:
    sock.settimeout(None)
    sock.sendall(b"hello")
    assert sock.recv(100) == b"hello"
print("connected")
for number, sock in enumerate(socks):
    threading.Thread(target=wait, args=(number, sock)).start()
sys.stdin.readline()
for sock in socks:
    sock.sendall(b"again")
"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[PrivateHost]:
    with private_host(tmp_path, TWO_VIPS) as made:
        yield made


@pytest.fixture
def client(host: PrivateHost) -> Iterator[Station]:
    """A machine on the clients' network."""
    with station() as made:
        cable(host, made, "v0")
        for address in ("10.0.0.1/24", "fd00::1/64 nodad"):
            host.run("sh", "-c", f"ip address add {address} dev v0")
        made.ip("address add 10.0.0.50/24 dev eth0", "address add fd00::50/64 dev eth0 nodad")
        yield made


@pytest.fixture
def container(host: PrivateHost) -> Iterator[Station]:
    """A network behind the host, to which it passes on port 80 as Docker does."""
    with station() as made:
        cable(host, made, "c0")
        for address in ("172.30.0.1/24", "fd01::1/64 nodad"):
            host.run("sh", "-c", f"ip address add {address} dev c0")
        made.ip("address add 172.30.0.2/24 dev eth0", "address add fd01::2/64 dev eth0 nodad")
        made.ip("route add default via 172.30.0.1", "-6 route add default via fd01::1")
        rules = f"""
            table inet nat {{ chain prerouting {{ type nat hook prerouting priority -100;
                fib daddr type local meta nfproto ipv4 tcp dport 80 dnat ip to {BEHIND["four"]}
                fib daddr type local meta nfproto ipv6 tcp dport 80 dnat ip6 to {BEHIND["six"]}
            }}
            }}"""
        host.run("sh", "-c", f"echo '{rules}' | nft -f -")
        forward = "net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"
        host.run("sh", "-c", "; ".join(f"echo 1 > /proc/sys/{name}" for name in forward))
        yield made


def cable(host: PrivateHost, other: Station, device: str) -> None:
    made = f"ip link add {device} type veth peer name eth0 netns {other.pid}"
    host.run("sh", "-c", f"{made} && ip link set {device} up")
    other.ip("link set eth0 up")


@contextlib.contextmanager
def held(host: PrivateHost, name: str) -> Iterator[subprocess.Popen[str]]:
    with host.program("haoperator.net.__main__", name) as process:
        try:
            host.manager.hear("READY=1")
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def connected(client: Station, address: str, count: int) -> Iterator[subprocess.Popen[str]]:
    with client.python(CLIENT, address, str(count)) as process:
        assert line(process) == "connected"
        yield process


def outcomes(process: subprocess.Popen[str], count: int) -> list[str]:
    return [line(process).split()[1] for _ in range(count)]


def give_back(process: subprocess.Popen[str]) -> tuple[float, str]:
    """How long it took, and what it said."""
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code, errors = ended(process)
    assert code == 0, errors
    return time.monotonic() - began, errors


@pytest.mark.parametrize("name", VIPS)
@pytest.mark.parametrize("where", ["here", "behind NAT"])
def test_idle_clients_are_reset_and_those_of_other_addresses_are_not(
    host: PrivateHost, client: Station, container: Station, name: str, where: str
) -> None:
    if where == "here":
        host.run("nft", "flush", "ruleset")
        server_in: Station = Station(host.pid)
    else:
        server_in = container
    with (
        held(host, name) as keeper,
        server_in.python(SERVER) as server,
    ):
        assert line(server) == "listening"
        with (
            connected(client, VIPS[name], CLIENTS) as clients,
            connected(client, OWN[name], 1) as bystander,
        ):
            took, said = give_back(keeper)
            print(f"{where}, {name}: given back after {took:.3f} s")
            assert outcomes(clients, CLIENTS) == ["reset"] * CLIENTS
            assert f"{CLIENTS} connections of clients reset" in said
            assert bystander.stdin is not None
            bystander.stdin.write("talk\n")
            bystander.stdin.flush()
            assert outcomes(bystander, 1) == ["data"]


def test_clients_of_a_container_that_is_gone_are_reset(
    host: PrivateHost, client: Station, container: Station
) -> None:
    """It was killed with its network: nobody has told its clients anything."""
    with held(host, "four") as keeper, container.python(SERVER) as server:
        assert line(server) == "listening"
        with connected(client, VIPS["four"], CLIENTS) as clients:
            host.run("ip", "link", "del", "c0")
            give_back(keeper)
            assert outcomes(clients, CLIENTS) == ["reset"] * CLIENTS


def test_clients_that_cannot_be_reached_hold_up_nothing(
    host: PrivateHost, client: Station, container: Station
) -> None:
    with held(host, "four") as keeper, container.python(SERVER) as server:
        assert line(server) == "listening"
        with connected(client, VIPS["four"], CLIENTS):
            client.ip("address del 10.0.0.50/24 dev eth0")
            took, said = give_back(keeper)
            assert "reset" not in said
            assert took < 5.0  # or systemd would not have waited


def test_killed_keeper_leaves_the_resets_to_exec_stop_post(
    host: PrivateHost, client: Station, container: Station
) -> None:
    with held(host, "four") as keeper, container.python(SERVER) as server:
        assert line(server) == "listening"
        with connected(client, VIPS["four"], CLIENTS) as clients:
            keeper.kill()
            keeper.wait(10)
            until(lambda: "10.0.0.100" in host.run("ip", "address", "show", "v0"), "gone")
            remover = host.program(
                "haoperator.net.__main__", "--remove", "four", EXIT_CODE="killed"
            )
            with remover:
                code, errors = ended(remover)
            assert code == 0, errors
            assert outcomes(clients, CLIENTS) == ["reset"] * CLIENTS


def test_nothing_open_is_nothing_to_tell(host: PrivateHost, client: Station) -> None:
    with held(host, "four") as keeper:
        took, said = give_back(keeper)
        print(f"given back after {took:.3f} s")
        assert "reset" not in said
