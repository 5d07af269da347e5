# SPDX-License-Identifier: Apache-2.0
"""From an application's table to the container that it asks for. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tomlconfig.model import App, DockerOptions, Healthcheck

APP_LABEL = "org.haoperator1.app"
OPTIONS_LABEL = "org.haoperator1.options"

NO_RESTART = {"Name": "no"}
"""Only systemd starts an application: a container that Docker starts by itself would
run on a node that is not the primary."""


def container_name(app: App) -> str:
    """The container of an application that is given as an image."""
    return f"ha-{app.name}"


def digest(app: App) -> str:
    """Equal for equal options: a container with another one is made anew.

    Options that are not used do not count, so that a version that knows more of them
    finds the containers of the one before it.
    """
    unused = asdict(DockerOptions())
    options: dict[str, Any] = {
        "image": app.target,
        "ports": app.ports,
        "volumes": app.volumes,
        "environment": dict(app.environment),
        "command": app.command,
        "network": app.network,
    }
    options |= {key: to for key, to in asdict(app.options).items() if to != unused[key]}
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:16]


def labels(app: App) -> dict[str, str]:
    """Those of the configuration, and by which the container is known again."""
    return {**app.options.labels, APP_LABEL: app.name, OPTIONS_LABEL: digest(app)}


def host_config(app: App, port_bindings: Mapping[str, object]) -> dict[str, Any]:
    """The arguments of the SDK's `create_host_config`."""
    chosen = app.options
    arguments: dict[str, Any] = {
        "binds": list(app.volumes),
        "port_bindings": dict(port_bindings),
        "restart_policy": NO_RESTART,
        "network_mode": app.network,
        "privileged": chosen.privileged,
        "init": chosen.init or None,
        "mem_limit": chosen.memory,
        "nano_cpus": None if chosen.cpus is None else round(chosen.cpus * 1e9),
        "ulimits": [
            {"Name": name, "Soft": soft, "Hard": hard}
            for name, (soft, hard) in chosen.ulimits.items()
        ],
        "cap_add": list(chosen.capabilities),
        "cap_drop": list(chosen.drop_capabilities),
        "devices": list(chosen.devices),
        "read_only": chosen.read_only or None,
        "tmpfs": dict(_path_and_options(entry) for entry in chosen.tmpfs),
        "extra_hosts": list(chosen.extra_hosts),
        "dns": list(chosen.dns),
    }
    if chosen.log_driver or chosen.log_options:
        arguments["log_config"] = {
            "Type": chosen.log_driver or "",
            "Config": dict(chosen.log_options),
        }
    if chosen.gpus is not None:
        arguments["device_requests"] = [_device_request(chosen.gpus)]
    return {key: value for key, value in arguments.items() if value not in (None, [], {}, False)}


def creation(app: App, port_bindings: Mapping[str, object]) -> dict[str, Any]:
    """The arguments of the SDK's low-level `create_container`, but for `host_config`.

    Not those of `containers.create`: in version 5.0.3 that one takes the target of
    a volume "/srv/www:/www" for ":rw", and adds an anonymous volume at "/".
    """
    chosen = app.options
    return {
        "image": app.target,
        "name": container_name(app),
        "command": list(app.command) or None,
        "environment": dict(app.environment),
        "ports": [tuple(port.split("/", 1)) for port in sorted(port_bindings)],
        "labels": labels(app),
        "hostname": chosen.hostname,
        "user": chosen.user,
        "entrypoint": list(chosen.entrypoint) or None,
        "working_dir": chosen.workdir,
        "stop_signal": chosen.stop_signal,
        "healthcheck": chosen.healthcheck and _probe(chosen.healthcheck),
    }


def _path_and_options(tmpfs: str) -> tuple[str, str]:
    path, _, mount_options = tmpfs.partition(":")
    return path, mount_options


def _device_request(gpus: str) -> dict[str, Any]:
    """As `docker run --gpus` asks for them."""
    request: dict[str, Any] = {"Driver": "", "Capabilities": [["gpu"]], "Options": {}}
    if gpus.startswith("device="):
        return request | {"Count": 0, "DeviceIDs": gpus.removeprefix("device=").split(",")}
    return request | {"Count": -1 if gpus == "all" else int(gpus)}


def _probe(healthcheck: Healthcheck) -> dict[str, Any]:
    probe: dict[str, Any] = {"test": list(healthcheck.test)}
    for key in ("interval", "timeout", "start_period"):
        seconds = getattr(healthcheck, key)
        if seconds is not None:
            probe[key] = round(seconds * 1e9)
    if healthcheck.retries is not None:
        probe["retries"] = healthcheck.retries
    return probe


def bound_paths(app: App) -> list[str]:
    """The directories and files of this node that the container sees (not named volumes)."""
    sources = (volume.split(":", 1)[0] for volume in app.volumes)
    return [source for source in sources if source.startswith("/")]
