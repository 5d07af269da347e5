# SPDX-License-Identifier: Apache-2.0
"""The questions, one for each kind of checker.

Each takes at most `timeout` seconds and never raises: whatever goes wrong is an answer.
Standard library only, and each kind imports what it needs alone: a checker lives as
long as its application.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from haoperator.checkers.promise import Answer

    Probe = Callable[..., Answer]
    """`probe(target, timeout, **options)`, where the options are texts."""

PROBES = {
    "http": "web.http",
    "tcp": "network.tcp",
    "exec": "command.succeeds",
    "container": "docker.container",
    "unit": "command.unit",
    "process": "process.process",
    "ping": "network.ping",
    "link": "network.link",
    "vip": "network.vip",
    "disk": "storage.disk",
    "mount": "storage.mount",
    "docker": "docker.docker",
    "postgresql": "database.postgresql",
    "redis": "database.redis",
    "mysql": "database.mysql",
}


def probe_of(kind: str) -> Probe:
    """What asks for a checker of this kind."""
    module, _, name = PROBES[kind].partition(".")
    probe: Probe = getattr(importlib.import_module(f"haoperator.checkers.{module}"), name)
    return probe
