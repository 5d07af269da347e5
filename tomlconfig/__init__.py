# SPDX-License-Identifier: Apache-2.0
"""The configuration language of haoperator: definition, reader and checks.

`load(path)` returns a checked `Config` or raises `ConfigError`, whose text names
the file, the line, the key and what was expected. Imports nothing of haoperator.
"""

from tomlconfig.errors import ConfigError, Problem
from tomlconfig.model import (
    App,
    AppKind,
    Arbiter,
    Checker,
    CheckerKind,
    Cluster,
    Config,
    DockerOptions,
    Durability,
    Failover,
    Healthcheck,
    Keep,
    Link,
    OnFailure,
    Ready,
    ReadyKind,
    Replicate,
    RunsOn,
    Seconds,
    SplitBrain,
    Timing,
    Vip,
    Witness,
)
from tomlconfig.reader import load, parse

__all__ = [
    "App",
    "AppKind",
    "Arbiter",
    "Checker",
    "CheckerKind",
    "Cluster",
    "Config",
    "ConfigError",
    "DockerOptions",
    "Durability",
    "Failover",
    "Healthcheck",
    "Keep",
    "Link",
    "OnFailure",
    "Problem",
    "Ready",
    "ReadyKind",
    "Replicate",
    "RunsOn",
    "Seconds",
    "SplitBrain",
    "Timing",
    "Vip",
    "Witness",
    "load",
    "parse",
]
