# SPDX-License-Identifier: Apache-2.0
"""The Docker engine of this node, by its SDK.

Importing the SDK takes 140 ms and 29 MB, and twice as long where setuptools is
installed and puts itself in front of distutils; so it is imported late, without
that, and only by processes that end or become smaller soon.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from haoperator.apps import dockerd
from haoperator.apps.docker_socket import SOCKET
from haoperator.apps.errors import AppError

PATIENCE_SECONDS = 30.0
"""dockerd takes seconds to start on a busy machine that boots, and its package stops it for
some while it is upgraded. A start that has waited so long in vain is a failed start: systemd
makes the next one, which starts dockerd, until the application has used up its restarts."""
CALL_SECONDS = 60

_RETRY_SECONDS = 0.2


def sdk() -> Any:
    """The module `docker`. Raises AppError if it is not installed."""
    finders = [f for f in sys.meta_path if type(f).__name__ != "DistutilsMetaFinder"]
    sys.meta_path[:] = finders
    try:
        import docker
        import docker.errors
        import docker.utils.ports
    except ImportError as err:
        raise AppError(f"Docker's SDK is missing: {err}", "apt install python3-docker") from err
    return docker


def connect(
    progress: Callable[[str], None], *, wakes: bool, patience: float = PATIENCE_SECONDS
) -> Any:
    """A client of the engine, once it answers; `progress` is called while it does not.

    `wakes`: it may be asked even if that starts it. Raises AppError when it has not answered
    for `patience` seconds.
    """
    docker = sdk()
    deadline = time.monotonic() + patience
    while True:
        problem = f"{dockerd.UNIT} does not run"
        if wakes or dockerd.runs():
            try:
                return docker.DockerClient(
                    base_url=f"unix://{SOCKET}", version="auto", timeout=CALL_SECONDS
                )
            except docker.errors.DockerException as err:
                problem = str(err)
        if time.monotonic() >= deadline:
            raise AppError(
                f"Docker does not answer on {SOCKET} for {patience:g} s: {problem}",
                "see 'systemctl status docker'",
            )
        progress("waiting for dockerd")
        time.sleep(_RETRY_SECONDS)
