# SPDX-License-Identifier: Apache-2.0
"""From a table to a container: what is asked of Docker, and when it is made anew."""

from __future__ import annotations

import dataclasses

import pytest

from haoperator.apps import options
from haoperator.apps.docker_socket import demultiplexed
from haoperator.apps.engine import sdk
from tomlconfig.model import App, AppKind

WEB = App(
    "web",
    AppKind.IMAGE,
    "shop:1.4",
    ports=("8080:80", "127.0.0.1:53:53/udp"),
    volumes=("/srv/www:/www", "/srv/conf:/conf:ro", "cache:/cache"),
    environment={"LANG": "C"},
    command=("serve", "--all"),
)


def test_docker_is_asked_for_exactly_what_is_configured() -> None:
    docker = sdk()
    client = docker.APIClient(base_url="unix:///nowhere", version="1.41")
    bindings = docker.utils.ports.build_port_bindings(list(WEB.ports))
    host = client.create_host_config(**options.host_config(WEB, bindings))
    arguments = options.creation(WEB, bindings)
    name = arguments.pop("name")
    config = client.create_container_config(**arguments, host_config=host)
    client.close()
    assert name == "ha-web"
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


@pytest.mark.parametrize(
    "change",
    [
        {"target": "shop:1.5"},
        {"ports": ("80:80",)},
        {"volumes": ()},
        {"environment": {"LANG": "de"}},
        {"command": ()},
        {"network": "host"},
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
