# SPDX-License-Identifier: Apache-2.0
"""A checker's process, as systemd sees it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from haoperator.lean import process
from tests.unit.fake_systemd import Manager, manager, resident_kib
from tests.unit.private_host import ended, private_host

CONFIG = """
[cluster]
name = "small"
[node.node-a]
[node.node-b]
[link.lan]
node-a = "10.0.0.1"
node-b = "10.0.0.2"
[app.web]
image = "web:1"
[checker.flag]
app = "web"
exec = "/usr/bin/test -e /run/flag"
interval = "100ms"
timeout = "100ms"
failures = 3
"""


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Manager]:
    with manager(tmp_path) as made:
        yield made


@contextlib.contextmanager
def checking(systemd: Manager, flag: Path) -> Iterator[subprocess.Popen[str]]:
    arguments = ["flag", "exec", f"/usr/bin/test -e {flag}", "0.1", "5", "3", "1", "9"]
    command = process.command("haoperator.checkers.checker", arguments)
    with subprocess.Popen(
        command, env=systemd.environment, stderr=subprocess.PIPE, text=True
    ) as checker:
        try:
            yield checker
        finally:
            checker.kill()


def test_signs_of_life_follow_right_answers_and_failure_ends_it(
    systemd: Manager, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    with checking(systemd, flag) as checker:
        for _ in range(3):
            systemd.hear("WATCHDOG=1")
            systemd.forget()
        assert resident_kib(checker.pid) < 13 * 1024
        flag.unlink()
        removed = time.monotonic()
        systemd.hear("STATUS=/usr/bin/test: exit code 1 (1 of 3)")
        systemd.forget()
        code, errors = ended(checker)
        assert code == 1
        assert time.monotonic() - removed < 1.5
        systemd.hear("STATUS=/usr/bin/test: exit code 1 (3 of 3)")
        assert not any("WATCHDOG" in text for _, text in systemd.said)
        assert "checker flag: broken" in errors


def test_answer_that_is_wrong_once_ends_nothing(systemd: Manager, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with checking(systemd, flag) as checker:
        systemd.hear("STATUS=/usr/bin/test: exit code 1 (1 of 3)")
        flag.touch()
        systemd.hear("WATCHDOG=1")
        systemd.forget()
        systemd.hear("WATCHDOG=1")
        assert checker.poll() is None


def test_stop_ends_it_at_once(systemd: Manager, tmp_path: Path) -> None:
    with checking(systemd, tmp_path) as checker:
        systemd.hear("WATCHDOG=1")
        checker.terminate()
        assert checker.wait(2) == -signal.SIGTERM  # which systemd counts as success


def test_ready_is_told_when_it_is_known_to_be_well(systemd: Manager, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    with checking(systemd, flag) as checker:
        systemd.hear("STATUS=/usr/bin/test: exit code 1 (1 of 3)")
        systemd.hear("EXTEND_TIMEOUT_USEC=9000000")
        assert not any("READY" in text for _, text in systemd.said)
        flag.touch()
        systemd.hear("READY=1")
        assert checker.poll() is None


def test_launcher_reads_the_configuration(tmp_path: Path) -> None:
    with private_host(tmp_path, CONFIG) as host:
        with host.program("haoperator.checkers.__main__", "flag") as checker:
            host.manager.hear("STATUS=checking exec /usr/bin/test -e /run/flag")
            code, errors = ended(checker)
            assert code == 1
            assert "broken" in errors
        host.run("touch", "/run/flag")
        with host.program("haoperator.checkers.__main__", "flag") as checker:
            host.manager.hear("READY=1")
            checker.kill()
        with host.program("haoperator.checkers.__main__", "other") as checker:
            code, errors = ended(checker)
            assert (code, "[checker.other]" in errors) == (78, True)
