# SPDX-License-Identifier: Apache-2.0
"""From a table to a container: what is asked of Docker, and when it is made anew."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from haoperator.apps import options
from haoperator.apps.docker_socket import demultiplexed
from haoperator.apps.engine import sdk
from tomlconfig.model import App, AppKind, DockerOptions, Healthcheck

WEB = App(
    "web",
    AppKind.IMAGE,
    "shop:1.4",
    ports=("8080:80", "127.0.0.1:53:53/udp"),
    volumes=("/srv/www:/www", "/srv/conf:/conf:ro", "cache:/cache"),
    environment={"LANG": "C"},
    command=("serve", "--all"),
)


def asked_for(app: App) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the SDK sends to Docker: the container's configuration, and the host's part of it."""
    docker = sdk()
    client = docker.APIClient(base_url="unix:///nowhere", version="1.41")
    bindings = docker.utils.ports.build_port_bindings(list(app.ports))
    host = client.create_host_config(**options.host_config(app, bindings))
    arguments = options.creation(app, bindings)
    assert arguments.pop("name") == f"ha-{app.name}"
    config = client.create_container_config(**arguments, host_config=host)
    client.close()
    return config, host


def test_docker_is_asked_for_exactly_what_is_configured() -> None:
    config, host = asked_for(WEB)
    assert config["Image"] == "shop:1.4"
    assert config["Cmd"] == ["serve", "--all"]
    assert config["Env"] == ["LANG=C"]
    # The high-level call of the SDK adds a volume at "/" here.
    assert not config.get("Volumes")
    assert host["Binds"] == ["/srv/www:/www", "/srv/conf:/conf:ro", "cache:/cache"]
    assert host["RestartPolicy"] == {"Name": "no"}
    assert host["PortBindings"] == {
        "80/tcp": [{"HostIp": "", "HostPort": "8080"}],
        "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "53"}],
    }
    assert sorted(config["ExposedPorts"]) == ["53/udp", "80/tcp"]
    assert config["Labels"]["org.haoperator1.app"] == "web"


OPTIONS = DockerOptions(
    user="999:999",
    hostname="shop",
    entrypoint=("/bin/tini", "--"),
    workdir="/app",
    privileged=True,
    init=True,
    gpus="device=0,2",
    memory=512 << 20,
    cpus=1.5,
    ulimits={"nofile": (1024, 4096)},
    capabilities=("NET_ADMIN",),
    drop_capabilities=("ALL",),
    devices=("/dev/ttyUSB0", "/dev/a:/dev/b:rw"),
    labels={"team": "shop"},
    log_driver="journald",
    log_options={"tag": "shop"},
    healthcheck=Healthcheck(("CMD-SHELL", "true"), interval=2.0, timeout=0.5, retries=3),
    read_only=True,
    tmpfs=("/run", "/tmp:size=64m"),
    extra_hosts=("db:10.0.0.7", "up:host-gateway"),
    dns=("10.0.0.53",),
    stop_signal="SIGINT",
)


def test_every_option_reaches_docker() -> None:
    config, host = asked_for(dataclasses.replace(WEB, options=OPTIONS))
    asked = {key: config[key] for key in ("User", "Hostname", "Entrypoint", "WorkingDir")}
    assert asked == {
        "User": "999:999",
        "Hostname": "shop",
        "Entrypoint": ["/bin/tini", "--"],
        "WorkingDir": "/app",
    }
    assert config["StopSignal"] == "SIGINT"
    assert config["Labels"]["team"] == "shop"
    assert config["Healthcheck"] == {
        "Test": ["CMD-SHELL", "true"],
        "Interval": 2_000_000_000,
        "Timeout": 500_000_000,
        "Retries": 3,
        "StartPeriod": None,
    }
    device = {"PathOnHost": "/dev/ttyUSB0", "PathInContainer": "/dev/ttyUSB0"}
    expected = {
        "Privileged": True,
        "Init": True,
        "Memory": 512 << 20,
        "NanoCpus": 1_500_000_000,
        "Ulimits": [{"Name": "nofile", "Soft": 1024, "Hard": 4096}],
        "CapAdd": ["NET_ADMIN"],
        "CapDrop": ["ALL"],
        "Devices": [
            {**device, "CgroupPermissions": "rwm"},
            {"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "rw"},
        ],
        "LogConfig": {"Type": "journald", "Config": {"tag": "shop"}},
        "ReadonlyRootfs": True,
        "Tmpfs": {"/run": "", "/tmp": "size=64m"},
        "ExtraHosts": ["db:10.0.0.7", "up:host-gateway"],
        "Dns": ["10.0.0.53"],
        "DeviceRequests": [
            {
                "Driver": "",
                "Count": 0,
                "DeviceIDs": ["0", "2"],
                "Capabilities": [["gpu"]],
                "Options": {},
            }
        ],
    }
    assert {key: host.get(key) for key in expected} == expected


def test_every_option_of_the_language_is_tried_above() -> None:
    for field in dataclasses.fields(DockerOptions):
        if field.name != "env_file":  # becomes part of the environment (test_apps_process)
            assert getattr(OPTIONS, field.name) != getattr(DockerOptions(), field.name), field.name


def test_gpus_by_number_and_all_of_them() -> None:
    for said, count in (("all", -1), ("2", 2)):
        _, host = asked_for(dataclasses.replace(WEB, options=DockerOptions(gpus=said)))
        assert host["DeviceRequests"][0]["Count"] == count


def test_option_that_is_not_used_leaves_the_digest_of_a_former_version() -> None:
    assert options.digest(WEB) == "4de4c169b545689d"


@pytest.mark.parametrize(
    "change",
    [
        {"target": "shop:1.5"},
        {"ports": ("80:80",)},
        {"volumes": ()},
        {"environment": {"LANG": "de"}},
        {"command": ()},
        {"network": "host"},
        {"options": DockerOptions(read_only=True)},
        {"options": DockerOptions(labels={"a": "b"})},
    ],
)
def test_changed_option_changes_the_digest(change: dict[str, object]) -> None:
    assert options.digest(WEB) == options.digest(dataclasses.replace(WEB))
    assert options.digest(WEB) != options.digest(dataclasses.replace(WEB, **change))  # type: ignore[arg-type]


def test_restart_rules_of_the_unit_do_not_change_the_container() -> None:
    assert options.digest(WEB) == options.digest(dataclasses.replace(WEB, max_restarts=9))


def test_only_paths_of_this_node_are_bound() -> None:
    assert options.bound_paths(WEB) == ["/srv/www", "/srv/conf"]


def test_log_is_read_with_and_without_stream_headers() -> None:
    assert demultiplexed(b"\x01\0\0\0\0\0\0\x03one\x02\0\0\0\0\0\0\x03two") == b"onetwo"
    assert demultiplexed(b"plain text of a terminal") == b"plain text of a terminal"
