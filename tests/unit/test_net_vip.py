# SPDX-License-Identifier: Apache-2.0
"""`ha-vip` for real, on a pair of interfaces in a network namespace."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_interface
from pathlib import Path
from typing import IO

import pytest

from haoperator.net.vacancy import LOST_SECONDS
from tests.unit.fake_systemd import resident_kib
from tests.unit.private_host import PATIENCE, PrivateHost, ended, private_host, until

CONFIG = """
[cluster]
name = "small"
[node.node-a]
[node.node-b]
[link.lan]
node-a = "10.0.0.1"
node-b = "10.0.0.2"
[vip.front]
address = "10.0.0.100/24"
interface = "v0"
[vip.six]
address = "fd00::64/64"
interface = "v0"
[vip.nowhere]
address = "10.0.0.101/24"
interface = "absent0"
"""

MAKE_CABLE = "ip link add v0 type veth peer name v1 && ip link set v0 up && ip link set v1 up"
SNIFFER = """
import socket
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
sock.bind(("v1", 3))
print("listening", flush=True)
while True:
    print(sock.recv(2000).hex(), flush=True)
"""


@pytest.fixture
def host(tmp_path: Path) -> Iterator[PrivateHost]:
    with private_host(tmp_path, CONFIG) as made:
        made.run("sh", "-c", MAKE_CABLE)
        yield made


def addresses(host: PrivateHost) -> str:
    return host.run("ip", "-o", "address", "show", "dev", "v0")


def vip(host: PrivateHost, *argv: str, **environment: str) -> subprocess.Popen[str]:
    return host.program("haoperator.net.__main__", *argv, **environment)


@contextlib.contextmanager
def serving(host: PrivateHost, name: str) -> Iterator[subprocess.Popen[str]]:
    with vip(host, name) as process:
        try:
            host.manager.hear("READY=1")
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def sniffing(host: PrivateHost) -> Iterator[IO[str]]:
    """Frames at the other end of the cable, a line in hexadecimal for each."""
    sniffer = subprocess.Popen(
        host.command(sys.executable, "-c", SNIFFER), stdout=subprocess.PIPE, text=True
    )
    with sniffer:
        try:
            assert sniffer.stdout is not None
            assert sniffer.stdout.readline() == "listening\n"
            yield sniffer.stdout
        finally:
            sniffer.kill()


@pytest.mark.parametrize(("name", "address"), [("front", "10.0.0.100/24"), ("six", "fd00::64/64")])
def test_vip_is_up_when_the_unit_is_ready_and_gone_after_sigterm(
    host: PrivateHost, name: str, address: str
) -> None:
    started = time.monotonic()
    with serving(host, name) as process:
        assert address in addresses(host)
        took = host.manager.hear("READY=1") - started
        assert took < 1.0, f"ready after {took:.3f} s"
        process.send_signal(signal.SIGTERM)
        code, errors = ended(process)
        assert code == 0, errors
        assert address not in addresses(host)
        assert host.run("ls", "/run/haoperator/vip") == ""


def test_unit_knows_its_address_without_the_configuration(host: PrivateHost) -> None:
    host.run("sh", "-c", "echo broken > /etc/haoperator/cluster.toml")
    with vip(host, "front", HAOPERATOR_VIP="10.0.0.77 24 v0") as process:
        host.manager.hear("READY=1")
        assert "10.0.0.77/24" in addresses(host)
        process.send_signal(signal.SIGTERM)
        assert ended(process)[0] == 0


def test_process_that_waits_is_small(host: PrivateHost) -> None:
    with serving(host, "front") as process:
        line = Path(f"/proc/{process.pid}/cmdline")
        until(lambda: b"haoperator.net.keeper" in line.read_bytes(), "no keeper")
        host.manager.hear("WATCHDOG=1")
        assert resident_kib(process.pid) < 12 * 1024


def test_killed_process_leaves_nothing_after_exec_stop_post(host: PrivateHost) -> None:
    with serving(host, "front") as process:
        process.kill()
        process.wait(PATIENCE)
        assert "10.0.0.100/24" in addresses(host)
        # Even if the configuration was changed in between.
        host.run("sh", "-c", "echo broken > /etc/haoperator/cluster.toml")
        for _ in range(2):
            with vip(host, "--remove", "front", EXIT_CODE="killed", EXIT_STATUS="KILL") as remover:
                code, errors = ended(remover)
            if code != 0:
                break
            assert "10.0.0.100/24" not in addresses(host)
        # The second time there is neither a trace nor a configuration: it says so.
        assert (code, "cluster.toml" in errors) == (1, True)


def test_remove_is_idempotent_and_cheap_after_an_orderly_end(host: PrivateHost) -> None:
    for environment in ({"EXIT_CODE": "exited", "EXIT_STATUS": "0"}, {}):
        with vip(host, "--remove", "front", **environment) as remover:
            assert ended(remover) == (0, "")


def test_address_that_was_there_already_is_kept(host: PrivateHost) -> None:
    host.run("ip", "address", "add", "10.0.0.100/24", "dev", "v0")
    with serving(host, "front") as process:
        process.send_signal(signal.SIGTERM)
        code, errors = ended(process)
        assert code == 0
        assert "was there already" in errors
    assert "10.0.0.100/24" not in addresses(host)


def test_address_removed_by_hand_is_put_back_and_announced(host: PrivateHost) -> None:
    with serving(host, "front") as process:
        host.manager.hear("WATCHDOG=1")
        host.run("ip", "address", "del", "10.0.0.100/24", "dev", "v0")
        removed = time.monotonic()
        back = until(lambda: "10.0.0.100/24" in addresses(host), "not put back")
        assert back - removed < 1.0
        process.send_signal(signal.SIGTERM)
        code, errors = ended(process)
        assert code == 0
        assert "somebody removed it" in errors


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        ("link set v0 down", "v0 is down"),
        ("link set v1 down", "v0 has no carrier"),
        ("link del v0", "there is no interface v0"),
    ],
)
def test_interface_that_is_of_no_use_fails_the_unit(
    host: PrivateHost, loss: str, reason: str
) -> None:
    with serving(host, "front") as process:
        host.manager.hear("WATCHDOG=1")
        host.run("ip", *loss.split())
        lost = time.monotonic()
        assert host.manager.hear(f"STATUS=10.0.0.100 on v0: {reason}") - lost < 1.5
        code, errors = ended(process)
        # Not to be started again by systemd: the unit has failed, and the operator acts.
        assert code == 69
        assert f"{reason}, for {LOST_SECONDS:g} s: given up here" in errors
        assert LOST_SECONDS - 0.2 < time.monotonic() - lost < LOST_SECONDS + 2.0
    with vip(host, "--remove", "front", EXIT_CODE="exited", EXIT_STATUS="69") as remover:
        code, errors = ended(remover)
    assert code == 0, errors
    assert "10.0.0.100" not in host.run("ip", "-o", "address")


@pytest.mark.parametrize(("name", "address"), [("front", "10.0.0.100/24"), ("six", "fd00::64/64")])
@pytest.mark.parametrize(
    ("loss", "return_"),
    [
        ("ip link set v0 down", "ip link set v0 up"),
        ("ip link set v1 down", "ip link set v1 up"),
        ("ip link del v0", MAKE_CABLE),
    ],
)
def test_interface_that_comes_back_soon_has_its_address_again(
    host: PrivateHost, name: str, address: str, loss: str, return_: str
) -> None:
    with serving(host, name) as process:
        host.manager.hear("WATCHDOG=1")
        host.run("sh", "-c", loss)
        host.manager.hear(f"STATUS={address.partition('/')[0]} on v0: ")
        host.run("sh", "-c", return_)
        until(lambda: address in addresses(host), "not put back")
        with sniffing(host) as frames:
            # Within the burst: the next announcement would be ten seconds away.
            began = time.monotonic()
            wanted = ip_interface(address).ip.packed
            until(lambda: wanted in bytes.fromhex(frames.readline()), "not announced")
            assert time.monotonic() - began < 1.0
        process.send_signal(signal.SIGTERM)
        code, errors = ended(process)
        assert (code, "is back" in errors) == (0, True), errors


def test_takeover_is_announced_five_times_in_both_forms(host: PrivateHost) -> None:
    with sniffing(host) as frames, serving(host, "front"):
        arrived: list[tuple[float, int]] = []
        while len(arrived) < 10:
            frame = bytes.fromhex(frames.readline())
            if frame[12:14] == b"\x08\x06" and frame[28:32] == bytes([10, 0, 0, 100]):
                arrived.append((time.monotonic(), frame[21]))
        assert [operation for _, operation in arrived] == [1, 2] * 5
        assert 0.6 < arrived[-1][0] - arrived[0][0] < 1.5


def test_missing_interface_and_unknown_name_are_named(host: PrivateHost) -> None:
    # Neither is of any use to start again: the operator decides, or an administrator.
    for name, expected, exit_code in (
        ("nowhere", "no interface absent0", 69),
        ("other", "[vip.other]", 78),
    ):
        with vip(host, name) as process:
            code, errors = ended(process)
        assert code == exit_code
        assert expected in errors
