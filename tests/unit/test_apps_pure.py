# SPDX-License-Identifier: Apache-2.0
"""What applications are known by, without Docker."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import PurePath

import pytest

from haoperator.apps.compose_labels import belongs
from haoperator.apps.held import Held, number_of
from haoperator.apps.readiness import unix_time
from haoperator.apps.unreplicated import unreplicated


@pytest.mark.parametrize(
    ("files", "directory", "ours"),
    [
        ("/srv/shop/compose.yaml", "/srv/shop", True),
        ("compose.yaml", "/srv/shop", True),
        ("./compose.yaml,more.yaml", "/srv/shop", True),
        ("compose.yaml", "/srv/other", False),
        ("", "/srv/shop", False),
        (None, None, False),
    ],
)
def test_container_belongs_to_the_project_of_its_file(
    files: str | None, directory: str | None, ours: bool
) -> None:
    project = "com.docker.compose.project"
    labels = {f"{project}.config_files": files, f"{project}.working_dir": directory}
    said = {name: value for name, value in labels.items() if value is not None}
    assert belongs(said, "/srv/shop/compose.yaml") is ours


@pytest.mark.parametrize(
    ("name", "number"),
    [("SIGINT", 2), ("INT", 2), ("9", 9), ("SIGRTMIN+3", signal.SIGRTMIN + 3), ("", 15), ("?", 15)],
)
def test_stop_signal_is_a_number(name: str, number: int) -> None:
    assert number_of(name) == number


def test_container_is_written_down_and_read_again() -> None:
    held = Held("f" * 64, "ha-web", 17, signal.SIGINT)
    assert Held.parse(str(held)) == held


def test_process_that_is_not_of_the_container_is_not_touched() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        assert Held("f" * 64, "ha-web", process.pid).open() is None
        process.kill()
    assert Held("f" * 64, "ha-web", process.pid).open() is None
    assert Held("f" * 64, "ha-web").open() is None
    with open("/proc/self/cgroup", encoding="utf-8") as file:
        of_this = file.read().splitlines()[-1]
    pidfd = Held(of_this, "this", os.getpid()).open()
    assert pidfd is not None
    os.close(pidfd)


def test_time_of_docker_is_read_to_the_microsecond() -> None:
    assert unix_time("1970-01-01T00:00:01.123456789Z") == pytest.approx(1.123456789)
    assert unix_time("1970-01-01T00:01:00Z") == 60.0


def test_what_can_be_written_and_is_not_replicated_is_found() -> None:
    def bind(source: str, *, writable: bool = True) -> dict[str, object]:
        return {"Type": "bind", "Source": source, "Destination": "/d", "RW": writable}

    def volume(name: str) -> dict[str, object]:
        source = f"/var/lib/docker/volumes/{name}/_data"
        return {"Type": "volume", "Name": name, "Source": source, "Destination": "/d", "RW": True}

    mounts = [
        *(bind("/srv/shop/data"), bind("/srv/shop/data/sub"), bind("/srv/shop")),
        *(bind("/srv/conf", writable=False), bind("/run/docker.sock"), bind("/dev/shm")),
        *(volume("pgdata"), volume("cache"), volume("a" * 64)),
        {"Type": "tmpfs", "Destination": "/tmp", "RW": True},
    ]
    replicated = [PurePath("/srv/shop/data"), PurePath("/var/lib/docker/volumes/pgdata/_data")]
    assert unreplicated(mounts, replicated) == [
        "directory /srv/shop at /d",
        "volume cache at /d",
        "a volume without a name at /d",
    ]
