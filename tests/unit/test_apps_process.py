# SPDX-License-Identifier: Apache-2.0
"""`ha-app` against a dockerd that is fake, with containers that are real processes."""

from __future__ import annotations

import contextlib
import os
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
[app.port]
image = "web:1"
ready = "tcp:127.0.0.1:7777"
start_timeout = "1s"
[app.log]
image = "web:1"
ready = "log:^last w"
[app.silent]
image = "web:1"
ready = "log:never said"
start_timeout = "1s"
[app.unprobed]
image = "web:1"
ready = "health"
[app.writes]
image = "web:1"
volumes = ["/srv:/data", "/usr:/usr:ro", "/run:/run"]
[app.stays]
exec = "/bin/sleep 1000"
environment = { A = "b" }
[app.obeys]
exec = "/bin/sleep 1001"
exec_stop = "/bin/sh -c 'touch /run/stopped; kill $(cat /run/pid)'"
stop_timeout = "1s"
[app.ignores]
exec = "/bin/sleep 1003"
exec_stop = "/bin/true"
stop_timeout = "1s"
[app.ends]
exec = "/bin/sh -c 'exit 3'"
[app.asked]
exec = "/bin/touch /run/asked"
exec_status = "/bin/test -e /run/asked"
exec_stop = "/bin/rm /run/asked"
[app.notifies]
exec = "/bin/sleep 1002"
ready = "notify"
[app.nowhere]
exec = "/no/such/program"
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


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def running(container: Container) -> bool:
    return container.inspect()["State"]["Running"] is True


def test_unit_is_ready_when_the_container_runs_and_stops_it_on_sigterm(place: Place) -> None:
    with place.serving("web") as (process, container):
        assert running(container)
        line = Path(f"/proc/{process.pid}/cmdline")
        until(lambda: b"haoperator.apps.waiter" in line.read_bytes(), "no waiter")
        place.host.manager.hear("WATCHDOG=1")
        until(lambda: "GET /events" in place.engine.requests, "no events")
        assert resident_kib(process.pid) < 15 * 1024
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


def test_memory_that_ran_out_is_named(place: Place) -> None:
    with place.serving("web") as (process, container):
        assert container.process is not None
        container.out_of_memory = True
        container.process.kill()
        place.host.manager.hear("STATUS=the container was killed because it was out of memory")
        assert ended(process)[0] == 1


def test_container_that_becomes_unhealthy_later_fails_the_unit_at_once(place: Place) -> None:
    place.engine.health = "healthy"
    with place.serving("web") as (process, container):
        until(lambda: "GET /events" in place.engine.requests, "no events")
        place.engine.say("health_status: unhealthy", container)  # an old one: it is well now
        place.engine.say("health_status: healthy", container)
        container.health = "unhealthy"
        place.engine.say("health_status: unhealthy", container)
        said = time.monotonic()
        place.host.manager.hear("STATUS=the container is unhealthy: no bread left")
        assert ended(process)[0] == 1
        assert time.monotonic() - said < 1.0
        with place.app("--stop", "web", EXIT_CODE="exited", EXIT_STATUS="1") as stopper:
            assert ended(stopper) == (0, "")
        assert not running(container)


def test_dockerd_that_goes_is_no_failure_and_what_it_did_not_tell_is_asked(place: Place) -> None:
    place.engine.health = "healthy"
    with place.serving("web") as (process, container):
        until(lambda: "GET /events" in place.engine.requests, "no events")
        place.engine.hang_up()
        place.host.manager.hear("STATUS=container ha-web runs; dockerd does not run or not answer")
        assert process.poll() is None
        assert running(container)
        container.health = "unhealthy"
        place.engine.away = False
        place.host.manager.hear("STATUS=the container is unhealthy")
        assert ended(process)[0] == 1


def test_ready_by_a_port(place: Place) -> None:
    with place.app("port") as process:
        code, errors = ended(process)
        assert (code, "not ready within 1 s, waiting for tcp:127.0.0.1:7777" in errors) == (1, True)
    listen = "import socket, time; s = socket.create_server(('127.0.0.1', 7777)); time.sleep(60)"
    with subprocess.Popen(place.host.command("python3", "-c", listen)) as server:
        with place.serving("port"):
            pass
        server.kill()


def test_ready_by_a_line_of_its_log(place: Place) -> None:
    with place.serving("log"):
        pass
    with place.app("silent") as process:
        assert ended(process)[0] == 1
    with place.app("unprobed") as process:
        code, errors = ended(process)
        assert (code, "has no health check" in errors) == (78, True)


def test_what_is_written_and_not_replicated_is_pointed_out(place: Place) -> None:
    with place.serving("writes") as (process, _):
        process.terminate()
        _, errors = ended(process)
    assert "may write to directory /srv at /data, which is not replicated" in errors
    assert errors.count("not replicated") == 1


def test_command_is_the_application_as_long_as_it_runs(place: Place) -> None:
    with place.app("stays") as process:
        place.host.manager.hear("READY=1")
        (child,) = children(process.pid)
        environ = Path(f"/proc/{child}/environ")  # empty for a moment while it execs
        until(lambda: environ.read_bytes() != b"", "it has an environment")
        environment = environ.read_bytes()
        assert b"A=b" in environment
        assert b"NOTIFY_SOCKET" not in environment
        assert resident_kib(process.pid) < 15 * 1024
        process.terminate()
        assert ended(process)[0] == 0
        assert not Path(f"/proc/{child}").exists()


def test_command_that_ends_fails_the_unit(place: Place) -> None:
    with place.app("stays") as process:
        place.host.manager.hear("READY=1")
        (child,) = children(process.pid)
        os.kill(child, signal.SIGKILL)
        place.host.manager.hear("STATUS=it was killed by signal 9")
        assert ended(process)[0] == 1
    for name, words in (("ends", "exit code 3"), ("nowhere", "No such file")):
        with place.app(name) as process:
            code, errors = ended(process)
            assert (code, words in errors) == (1, True), errors


def test_command_that_stops_it_goes_before_the_signal(place: Place) -> None:
    with place.app("obeys") as process:
        place.host.manager.hear("READY=1")
        (child,) = children(process.pid)
        place.host.run("sh", "-c", f"echo {child} >/run/pid")
        process.terminate()
        assert ended(process)[0] == 0
        place.host.run("test", "-e", "/run/stopped")
    place.host.manager.forget()
    with place.app("ignores") as process:
        place.host.manager.hear("READY=1")
        process.terminate()
        code, errors = ended(process)
        assert (code, "was killed" in errors) == (0, True)


def test_commands_start_tell_and_stop(place: Place) -> None:
    with place.app("asked") as process:
        place.host.manager.hear("READY=1")
        place.host.run("test", "-e", "/run/asked")
        process.terminate()
        assert ended(process)[0] == 0
    place.host.run("sh", "-c", "! test -e /run/asked")
    with place.app("asked") as process:
        place.host.manager.forget()
        place.host.manager.hear("READY=1")
        place.host.run("rm", "/run/asked")
        place.host.manager.hear("STATUS=its status: /bin/test ended with exit code 1")
        assert ended(process)[0] == 1


def test_command_that_notifies_is_not_spoken_for(place: Place) -> None:
    with place.app("notifies") as process:
        until(lambda: len(children(process.pid)) == 1, "no child")
        (child,) = children(process.pid)
        until(
            lambda: b"NOTIFY_SOCKET" in Path(f"/proc/{child}/environ").read_bytes(),
            "it cannot notify",
        )
        process.terminate()
        assert ended(process)[0] == 0
    place.host.manager.hear("STOPPING=1")
    assert not any("READY" in text for _, text in place.host.manager.said)


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
