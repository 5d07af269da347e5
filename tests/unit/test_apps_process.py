# SPDX-License-Identifier: Apache-2.0
"""`ha-app` against a dockerd that is fake, with containers that are real processes."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit.fake_docker import Container, Engine, Server
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
[app.web]
image = "web:1"
[app.told]
image = "web:1"
env_file = ["/run/told.env"]
environment = { LANG = "C" }
[app.missing]
image = "nothing:7"
[app.unbound]
image = "web:1"
volumes = ["/no/such/path:/data"]
[app.dies]
image = "web:1"
command = ["/bin/sh", "-c", "exit 3"]
[app.old]
container = "byhand"
"""


@dataclass
class Place:
    host: PrivateHost
    engine: Engine

    def app(self, *argv: str, **environment: str) -> subprocess.Popen[str]:
        return self.host.program("haoperator.apps.__main__", *argv, **environment)

    @contextlib.contextmanager
    def serving(self, name: str) -> Iterator[tuple[subprocess.Popen[str], Container]]:
        with self.app(name) as process:
            try:
                self.host.manager.hear("READY=1", PATIENCE)
                container = self.engine.find("byhand" if name == "old" else f"ha-{name}")
                assert container is not None
                yield process, container
            finally:
                process.kill()
                self.host.manager.forget()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    engine = Engine()
    server = Server(tmp_path / "docker.sock", engine)
    try:
        with private_host(tmp_path, CONFIG) as host:
            host.run("ln", "-s", str(tmp_path / "docker.sock"), "/run/docker.sock")
            yield Place(host, engine)
    finally:
        server.end()


def running(container: Container) -> bool:
    return container.inspect()["State"]["Running"] is True


def test_unit_is_ready_when_the_container_runs_and_stops_it_on_sigterm(place: Place) -> None:
    with place.serving("web") as (process, container):
        assert running(container)
        line = Path(f"/proc/{process.pid}/cmdline")
        until(lambda: b"haoperator.apps.waiter" in line.read_bytes(), "no waiter")
        place.host.manager.hear("WATCHDOG=1")
        assert resident_kib(process.pid) < 14 * 1024
        process.terminate()
        code, errors = ended(process)
        assert code == 0, errors
        assert not running(container)
        assert place.host.run("ls", "/run/haoperator/app") == ""


def test_death_of_the_container_fails_the_unit_at_once(place: Place) -> None:
    with place.serving("web") as (process, container):
        assert container.process is not None
        container.process.kill()
        died = time.monotonic()
        place.host.manager.hear("STATUS=the container died with exit code 137 (signal 9)")
        code, errors = ended(process)
        assert time.monotonic() - died < 1.0
        assert code == 1
        assert "last words" in errors


def test_container_that_fits_is_used_again_and_one_that_does_not_is_made_anew(
    place: Place,
) -> None:
    def create_count() -> int:
        return place.engine.requests.count("POST /containers/create")

    for _ in range(2):  # the second time it is `exited`, as after a power cut
        with place.serving("web") as (process, _):
            process.terminate()
            assert ended(process)[0] == 0
    assert create_count() == 1
    place.host.run("sed", "-i", '/app.web/a ports = ["80:80"]', "/etc/haoperator/cluster.toml")
    with place.serving("web"):
        assert create_count() == 2
    place.engine.images["web:1"] = "sha256:" + "2" * 64
    with place.serving("web"):
        assert create_count() == 3


def test_restart_policy_of_an_existing_container_is_corrected(place: Place) -> None:
    byhand = Container("byhand", {}, place.engine.images["web:1"])
    byhand.policy = "always"
    place.engine.containers["byhand"] = byhand
    with place.serving("old") as (process, container):
        assert container.policy == "no"
        process.terminate()
        assert "changed from always to no" in ended(process)[1]


def test_environment_comes_from_files_and_a_changed_one_makes_the_container_anew(
    place: Place,
) -> None:
    for word in ("one", "two"):
        place.host.run("sh", "-c", f"printf 'LANG=de\\nWORD={word}\\n' >/run/told.env")
        with place.serving("told") as (_, container):
            assert sorted(container.config["Env"]) == ["LANG=C", f"WORD={word}"]
    assert place.engine.requests.count("POST /containers/create") == 2
    place.host.run("rm", "/run/told.env")
    with place.app("told") as process:
        code, errors = ended(process)
    assert (code, "env_file /run/told.env: No such file" in errors) == (78, True)


def test_killed_process_leaves_no_container_after_exec_stop_post(place: Place) -> None:
    with place.serving("web") as (process, container):
        process.kill()
        process.wait(PATIENCE)
        assert running(container)
        for _ in range(2):
            with place.app("--stop", "web", EXIT_CODE="killed", EXIT_STATUS="KILL") as stopper:
                assert ended(stopper) == (0, "")
            assert not running(container)


def test_stuck_dockerd_cannot_keep_the_container_running(place: Place) -> None:
    with place.serving("web") as (process, container):
        place.engine.stuck = True
        process.terminate()
        code, errors = ended(process)
        assert code == 0, errors
        assert "signalling the container directly" in errors
        assert not running(container)


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("missing", 78, "docker load"),
        ("unbound", 78, "volume /no/such/path does not exist"),
        ("old", 78, "there is no container byhand"),
        ("other", 78, "there is no [app.other]"),
        ("dies", 1, "exit code 3"),
    ],
)
def test_what_cannot_run_is_told_with_the_way_out(
    place: Place, name: str, code: int, words: str
) -> None:
    with place.app(name) as process:
        returned, errors = ended(process)
    assert returned == code, errors
    assert words in errors


def test_foreign_container_of_that_name_is_not_touched(place: Place) -> None:
    foreign = Container("ha-web", {}, place.engine.images["web:1"])
    place.engine.containers["ha-web"] = foreign
    with place.app("web") as process:
        code, errors = ended(process)
    assert (code, "somebody else made" in errors) == (78, True)
    assert place.engine.find("ha-web") is foreign


def test_ready_waits_for_healthy_and_unhealthy_fails(place: Place) -> None:
    place.engine.health = "starting"
    with place.app("web") as process:
        place.host.manager.hear("EXTEND_TIMEOUT_USEC")
        container = place.engine.find("ha-web")
        assert container is not None
        assert not any("READY" in text for _, text in place.host.manager.said)
        container.health = "unhealthy"
        code, errors = ended(process)
        assert (code, "no bread left" in errors) == (1, True)
    place.host.manager.forget()
    with place.app("web") as process:
        container.health = "healthy"
        place.host.manager.hear("READY=1")
        process.kill()


def test_stop_while_it_starts_stops_the_container(place: Place) -> None:
    place.engine.health = "starting"
    with place.app("web") as process:
        place.host.manager.hear("EXTEND_TIMEOUT_USEC")
        process.send_signal(signal.SIGTERM)
        code, errors = ended(process)
        assert code == 0, errors
        container = place.engine.find("ha-web")
        assert container is not None
        assert not running(container)
