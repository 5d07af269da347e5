# SPDX-License-Identifier: Apache-2.0
"""Each kind of checker, as its process, against the real thing: it is well, fails, hangs,
flaps and recovers. Units of systemd are in the lab."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from haoperator.checkers.__main__ import arguments
from haoperator.checkers.probe import PROBES
from haoperator.lean import process
from tests.unit.checked_things import PORT, Contained, Thing, mariadb, thing
from tests.unit.fake_systemd import resident_kib
from tests.unit.private_host import PrivateHost, ended, private_host
from tests.unit.test_tomlconfig_load import BASE, parse
from tomlconfig import CheckerKind

IN_THE_LAB = {"unit"}
KINDS = sorted(PROBES.keys() - IN_THE_LAB)
MEMORY_KIB = 14 * 1024
"""Of a checker that has asked, whatever its kind; https takes 5 MB more."""
TIMEOUT = 0.4
RUDE = f"""
import socket
for _ in range(9):
    server = socket.create_connection(("10.9.9.9", {PORT}))
    said = server.recv(99)
    server.send(b"\\1\\0\\0\\1x")
    server.recv(99)
print(said)
"""


@contextlib.contextmanager
def checking(
    host: PrivateHost, what: Thing, failures: int = 1000, successes: int = 1
) -> Iterator[subprocess.Popen[str]]:
    numbers = ("0.05", str(TIMEOUT), str(failures), str(successes), "9")
    options = [f"{name}={value}" for name, value in what.options.items()]
    words = ["it", what.kind, what.target, *numbers, *options]
    command = host.command(*process.command("haoperator.checkers.checker", words))
    host.manager.forget()
    with subprocess.Popen(
        command, env=host.manager.environment, stderr=subprocess.PIPE, text=True
    ) as checker:
        try:
            yield checker
        finally:
            checker.kill()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[PrivateHost]:
    with private_host(tmp_path, "") as made:
        yield made


def test_every_kind_of_the_language_can_be_asked() -> None:
    assert {str(kind) for kind in CheckerKind} == PROBES.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_checker_tells_what_becomes_of_the_real_thing(
    host: PrivateHost, tmp_path: Path, kind: str
) -> None:
    with thing(kind, host, tmp_path) as it:
        # It fails: that is never called ready, and ends the checker.
        with checking(host, it, failures=3) as checker:
            code, errors = ended(checker)
            assert (code, "checker it: broken: " in errors) == (1, True)
            assert not any("READY" in text for _, text in host.manager.said)
        # It recovers.
        with checking(host, it) as checker:
            host.manager.hear("EXTEND_TIMEOUT_USEC=9000000")
            it.well()
            host.manager.hear("READY=1", patience=60)
            host.manager.hear("WATCHDOG=1")
            assert resident_kib(checker.pid) < MEMORY_KIB
            if hang := getattr(it, "hang", None):
                hangs(host, it, hang)
        # It flaps, one answer right for each that is wrong.
        with checking(host, it, failures=3, successes=1000) as checker:
            flaps(host, it, checker)
        # It fails when it was well.
        it.well()
        with checking(host, it, failures=3) as checker:
            host.manager.hear("READY=1", patience=60)
            it.fail()
            code, _ = ended(checker)
            assert code == 1


def hangs(host: PrivateHost, it: Thing, hang: Callable[[], None]) -> None:
    """No sign of life while it hangs; the checker that asks is well again when it is."""
    hang()
    time.sleep(0.2)  # for an answer that was on its way
    host.manager.forget()
    time.sleep(3 * TIMEOUT)
    host.manager.hear_what_came()
    assert not any("WATCHDOG" in text for _, text in host.manager.said), host.manager.said
    it.well()
    host.manager.hear("WATCHDOG=1", patience=60)


def flaps(host: PrivateHost, it: Thing, checker: subprocess.Popen[str]) -> None:
    wrong = getattr(it, "hang", it.fail)
    for _ in range(3):
        it.well()
        host.manager.forget()
        host.manager.hear("WATCHDOG=1", patience=60)
        wrong()
        if checker_hangs_itself(it):
            return  # which systemd sees: test_checker_that_hangs_for_good
        host.manager.hear("STATUS=", patience=60)
    code, errors = ended(checker)
    assert (code, "(3 of 3)" in errors) == (1, True)


def checker_hangs_itself(it: Thing) -> bool:
    return it.kind in ("disk", "mount")


def test_container_is_well_while_dockerd_is_away_as_long_as_it_lives(
    host: PrivateHost, tmp_path: Path
) -> None:
    with thing("container", host, tmp_path) as it, checking(host, it, failures=3) as checker:
        assert isinstance(it, Contained)
        it.well()
        host.manager.hear("READY=1")
        it.engine.stuck = True
        host.manager.hear("STATUS=shop lives, but dockerd: no answer within 0.4 s")
        host.manager.hear("WATCHDOG=1")
        assert checker.poll() is None
        assert it.container.process is not None
        it.container.process.kill()
        code, errors = ended(checker)
        assert (code, "shop: dockerd: no answer" in errors) == (1, True)


def test_mysql_is_not_provoked_into_blocking_this_node(host: PrivateHost) -> None:
    host.run("ip", "address", "add", "10.9.9.9/24", "dev", "lo")
    # The server counts for hosts whose name it finds.
    host.run("sh", "-c", "echo 10.9.9.9 asker.example >/etc/hosts")
    server = mariadb(host, "10.9.9.9")
    server.well()
    try:
        with checking(host, server) as checker:
            host.manager.hear("READY=1", patience=60)
            for _ in range(10):
                host.manager.hear("WATCHDOG=1")
                host.manager.said.clear()
            assert checker.poll() is None
        # Who does not keep to the protocol is blocked by this server after three times.
        assert "blocked" in host.run("python3", "-c", RUDE)
    finally:
        server.fail()


def test_options_reach_the_process_that_asks() -> None:
    text = """
[vip.front]
address = "10.0.0.9/24"
interface = "eth0"
[checker.a]
vip = "front"
on_failure = "failover"
[checker.b]
disk = "/srv"
free = "1kB"
on_failure = "notify"
[checker.c]
http = "https://h/"
body = "a=b c"
certificate_left = "1d"
on_failure = "notify"
"""
    config = parse(BASE + text)
    first, second, third = (arguments(checker, config) for checker in config.checkers)
    assert first == ["a", "vip", "10.0.0.9/24", "2.0", "1.0", "3", "1", "7.5", "interface=eth0"]
    assert second == ["b", "disk", "/srv", "2.0", "1.0", "3", "1", "7.5", "free=1000"]
    assert third[8:] == ["body=a=b c", "certificate_left=86400.0"]
