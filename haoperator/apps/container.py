# SPDX-License-Identifier: Apache-2.0
"""The container of an application, brought to run exactly as configured.

What may be found: nothing; one that fits (reused, so that what it wrote into its
own layer stays); one of older options or of an older image (made anew); what a
power cut left (`exited`, `created`, `dead`); one that somebody else made (refused).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from haoperator.apps import options
from haoperator.apps.engine import sdk
from haoperator.apps.errors import AppError
from haoperator.lean.notify import info, warn
from tomlconfig.model import App, AppKind

LOG_LINES = 5

_UNUSABLE = {"dead", "removing"}


def start(client: Any, app: App, found: Callable[[Any], None]) -> Any:
    """The running container. `found` hears of it before it is started. Raises AppError."""
    errors = sdk().errors
    try:
        match app.kind:
            case AppKind.IMAGE:
                return _start_image(client, _with_environment_files(app), found)
            case _:
                container = _existing(client, app)
                found(container)
                return _running(container, app)
    except errors.APIError as err:
        raise AppError(f"app {app.name}: Docker refused: {err.explanation or err}") from err


def state(container: Any) -> dict[str, Any]:
    """Docker's present view of it."""
    container.reload()
    found: dict[str, Any] = container.attrs["State"]
    return found


def last_words(container: Any) -> str:
    """The end of its log, for a message; empty if it has none that can be read."""
    try:
        log = container.logs(tail=LOG_LINES).decode(errors="replace").strip()
    except Exception:
        return ""
    return f"; it said last:\n{log}" if log else ""


def _start_image(client: Any, app: App, found: Callable[[Any], None]) -> Any:
    errors = sdk().errors
    container = _fitting(client, app)
    if container is not None:
        found(container)
        try:
            return _running(container, app)
        except errors.APIError as err:
            # A network or a mount that it remembers may be gone; its options are not.
            warn(f"app {app.name}: the old container does not start, making a new one: {err}")
            container.remove(force=True)
    container = _create(client, app)
    found(container)
    return _running(container, app)


def _fitting(client: Any, app: App) -> Any | None:
    """The container that is there already, if it is the one that is wanted."""
    errors = sdk().errors
    try:
        image = client.images.get(app.target)
    except errors.ImageNotFound as err:
        raise AppError(
            f"app {app.name}: the image {app.target} is not on this node",
            f"bring it with 'docker load -i FILE' or 'docker pull {app.target}', on both nodes",
            final=True,
        ) from err
    _check_sources(app)
    name = options.container_name(app)
    try:
        container = client.containers.get(name)
    except errors.NotFound:
        return None
    if container.labels.get(options.APP_LABEL) != app.name:
        raise AppError(
            f"app {app.name}: somebody else made a container {name}",
            f"remove it with 'docker rm {name}', or rename the application",
            final=True,
        )
    if container.attrs["Image"] != image.id:
        reason = "the image has changed"
    elif container.labels.get(options.OPTIONS_LABEL) != options.digest(app):
        reason = "its options have changed"
    elif container.status in _UNUSABLE:
        reason = f"the old one is {container.status}"
    else:
        return container
    info(f"app {app.name}: container made anew, {reason}")
    if container.status == "running":
        container.stop(timeout=math.ceil(app.stop_timeout))
    container.remove(force=True)
    return None


def _with_environment_files(app: App) -> App:
    """The application with what its `env_file`s say, as if it stood in `environment`."""
    environment: dict[str, str] = {}
    for path in app.options.env_file:
        try:
            environment |= sdk().utils.parse_env_file(path)
        except OSError as err:
            raise AppError(
                f"app {app.name}: env_file {path}: {err.strerror}",
                "put it there, on both nodes",
                final=True,
            ) from err
        except (UnicodeDecodeError, sdk().errors.DockerException) as err:
            raise AppError(f"app {app.name}: env_file {path}: {err}", final=True) from err
    return replace(app, environment={**environment, **app.environment})


def _create(client: Any, app: App) -> Any:
    bindings = sdk().utils.ports.build_port_bindings(list(app.ports))
    host = client.api.create_host_config(**options.host_config(app, bindings))
    made = client.api.create_container(**options.creation(app, bindings), host_config=host)
    return client.containers.get(made["Id"])


def _existing(client: Any, app: App) -> Any:
    try:
        return client.containers.get(app.target)
    except sdk().errors.NotFound as err:
        raise AppError(
            f"app {app.name}: there is no container {app.target} on this node",
            "make it with 'docker create', on both nodes, or configure its image",
            final=True,
        ) from err


def never_by_itself(container: Any, app: App) -> None:
    """Docker must not start it on a node that is not the primary."""
    policy = container.attrs["HostConfig"]["RestartPolicy"].get("Name") or "no"
    if policy != "no":
        warn(
            f"app {app.name}: restart policy of container {container.name} changed from {policy} "
            "to no: Docker must not start it on a node that is not the primary"
        )
        container.update(restart_policy=options.NO_RESTART)


def _running(container: Any, app: App) -> Any:
    never_by_itself(container, app)
    match container.status:
        case "running":
            info(f"app {app.name}: container {container.name} runs already")
        case "paused":
            container.unpause()
        case _:
            container.start()
    container.reload()
    return container


def _check_sources(app: App) -> None:
    for path in options.bound_paths(app):
        if not os.path.exists(path):
            raise AppError(
                f"app {app.name}: volume {path} does not exist",
                "make it: Docker would put an empty directory of root there",
                final=True,
            )
