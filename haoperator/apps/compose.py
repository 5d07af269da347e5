# SPDX-License-Identifier: Apache-2.0
"""A compose project, driven by the tool that this node has.

The plugin `docker compose` if it is there, else docker-compose, as in Debian 12. The
project keeps its own name, so that volumes that it has already are found. Its containers
are made first and started then: in between they lose their restart policies, and are
written down.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

from haoperator.apps import compose_labels
from haoperator.apps import container as containers
from haoperator.apps.errors import AppError
from tomlconfig.model import App

LINES_SHOWN = 5
_LOOK_SECONDS = 30.0


def start(
    client: Any, app: App, deadline: float, found: Callable[[Sequence[Any]], None]
) -> Sequence[Any]:
    """The containers of the project, started before `deadline` on the monotonic clock. `found`
    hears of them before they are. Raises AppError."""
    if not os.path.exists(app.target):
        raise AppError(
            f"app {app.name}: {app.target} does not exist",
            "put it there, on both nodes",
            final=True,
        )
    words = command(app)
    options = ("--no-build", "--remove-orphans")
    _run(app, [*words, "up", "--no-start", *options], deadline)
    made = _containers(client, app, words)
    for each in made:
        containers.never_by_itself(each, app)
    found(made)
    _run(app, [*words, "up", "--detach", *options], deadline)
    return _containers(client, app, words)


def command(app: App) -> list[str]:
    """The tool with what chooses the project. Raises AppError if there is no tool."""
    words = [*_tool(app), "--ansi", "never", "--file", app.target]
    if words[0] == "docker-compose" and len(app.env_files) > 1:
        raise AppError(
            f"app {app.name}: docker-compose takes one of env_files only",
            "install the plugin 'docker compose', or put them into one file",
            final=True,
        )
    for path in app.env_files:
        words += ["--env-file", path]
    for profile in app.profiles:
        words += ["--profile", profile]
    return words


def stopping(app: App) -> list[str]:
    """What stops the project in its own order and takes it down. Its volumes stay."""
    grace = str(math.ceil(app.stop_timeout))
    return [*command(app), "down", "--timeout", grace, "--remove-orphans"]


def _tool(app: App) -> list[str]:
    try:
        found = subprocess.run(
            ["docker", "compose", "version"],
            capture_output=True,
            timeout=_LOOK_SECONDS,
            check=False,
        )
        if found.returncode == 0:
            return ["docker", "compose"]
    except (OSError, subprocess.TimeoutExpired):
        pass
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    raise AppError(
        f"app {app.name}: neither 'docker compose' nor docker-compose is on this node",
        "apt install docker-compose, on both nodes",
        final=True,
    )


def _run(app: App, words: Sequence[str], deadline: float) -> str:
    """What it printed. Raises AppError with its last lines if it fails."""
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={"HOME": "/root", **os.environ},
            timeout=max(0.0, deadline - time.monotonic()),
            check=False,
        )
    except subprocess.TimeoutExpired as err:
        doing = " ".join(words)
        raise AppError(f"app {app.name}: {doing}: not done in time") from err
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-LINES_SHOWN:]
        raise AppError(f"app {app.name}: {app.target}: " + "\n".join(said or ["it failed"]))
    return done.stdout.decode(errors="replace")


def _containers(client: Any, app: App, words: Sequence[str]) -> list[Any]:
    listed = _run(app, [*words, "ps", "--all", "--quiet"], time.monotonic() + _LOOK_SECONDS).split()
    found = [client.containers.get(each) for each in listed]
    found = [each for each in found if each.labels.get(compose_labels.ONE_OFF, "False") != "True"]
    if not found:
        raise AppError(f"app {app.name}: {app.target} makes no containers", final=True)
    return found
