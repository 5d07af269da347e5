# SPDX-License-Identifier: Apache-2.0
"""From an application's table to the container that it asks for. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from tomlconfig.model import App

APP_LABEL = "org.haoperator1.app"
OPTIONS_LABEL = "org.haoperator1.options"

NO_RESTART = {"Name": "no"}
"""Only systemd starts an application: a container that Docker starts by itself would
run on a node that is not the primary."""


def container_name(app: App) -> str:
    """The container of an application that is given as an image."""
    return f"ha-{app.name}"


def digest(app: App) -> str:
    """Equal for equal options: a container with another one is made anew."""
    options = {
        "image": app.target,
        "ports": app.ports,
        "volumes": app.volumes,
        "environment": dict(app.environment),
        "command": app.command,
        "network": app.network,
    }
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()[:16]


def labels(app: App) -> dict[str, str]:
    """By which the container is known again."""
    return {APP_LABEL: app.name, OPTIONS_LABEL: digest(app)}


def host_config(app: App, port_bindings: Mapping[str, object]) -> dict[str, Any]:
    """The arguments of the SDK's `create_host_config`."""
    arguments: dict[str, Any] = {
        "binds": list(app.volumes),
        "port_bindings": dict(port_bindings),
        "restart_policy": NO_RESTART,
    }
    if app.network is not None:
        arguments["network_mode"] = app.network
    return arguments


def creation(app: App, port_bindings: Mapping[str, object]) -> dict[str, Any]:
    """The arguments of the SDK's low-level `create_container`, but for `host_config`.

    Not those of `containers.create`: in version 5.0.3 that one takes the target of
    a volume "/srv/www:/www" for ":rw", and adds an anonymous volume at "/".
    """
    return {
        "image": app.target,
        "name": container_name(app),
        "command": list(app.command) or None,
        "environment": dict(app.environment),
        "ports": [tuple(port.split("/", 1)) for port in sorted(port_bindings)],
        "labels": labels(app),
    }


def bound_paths(app: App) -> list[str]:
    """The directories and files of this node that the container sees (not named volumes)."""
    sources = (volume.split(":", 1)[0] for volume in app.volumes)
    return [source for source in sources if source.startswith("/")]
