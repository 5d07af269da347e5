# SPDX-License-Identifier: Apache-2.0
"""`ha-guard`: read which containers are the cluster's, and become the guard over them."""

from __future__ import annotations

import json

from haoperator.apps import options
from haoperator.lean import process, systemd
from haoperator.lean.configuration import CONFIGURATION, EXIT_MISCONFIGURED
from haoperator.lean.notify import error, warn
from haoperator.systemd import names


def main() -> int:
    """Returns only if there is no right configuration."""
    from tomlconfig import AppKind, ConfigError, load

    try:
        apps = load(CONFIGURATION).apps
    except ConfigError as err:
        error(str(err))
        return EXIT_MISCONFIGURED
    containers: dict[str, str] = {}
    projects: dict[str, str] = {}
    for app in apps:
        match app.kind:
            case AppKind.IMAGE:
                containers[options.container_name(app)] = app.name
            case AppKind.CONTAINER:
                containers[app.target] = app.name
            case AppKind.COMPOSE:
                projects[app.target] = app.name
            case AppKind.UNIT:
                _point_out(app.name, app.target)
    gate = names.PROMOTE
    guarded = {"containers": containers, "projects": projects, "gate": gate}
    process.become("haoperator.apps.guard", [json.dumps({**guarded, "path": names.bus_path(gate)})])


def _point_out(app: str, unit: str) -> None:
    told = systemd.show(unit, "LoadState", "UnitFileState")
    if told[:1] == ["not-found"]:
        warn(f"app {app}: there is no unit {unit} on this node: a takeover could not start it")
    elif told and told[1] in ("enabled", "enabled-runtime"):
        warn(
            f"app {app}: {unit} is enabled, and only the cluster may start it: "
            f"'systemctl disable {unit}', on both nodes"
        )
