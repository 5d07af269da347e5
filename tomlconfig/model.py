# SPDX-License-Identifier: Apache-2.0
"""What a cluster configuration means, once it has been read and checked.

Every value here is already validated: names are known, durations are seconds,
macros are replaced. Nothing in this module reads a file; `tomlconfig.reader` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path

Seconds = float


class Failover(StrEnum):
    AUTOMATIC = "automatic"
    MANUAL = "manual"


class Durability(StrEnum):
    WRITE = "write"
    FSYNC = "fsync"


class Keep(StrEnum):
    """Whose data wins after a split brain."""

    MANUAL = "manual"
    FORMER_PRIMARY = "former-primary"


class AppKind(StrEnum):
    """How an application is run. Exactly one of these keys stands in its table."""

    CONTAINER = "container"
    IMAGE = "image"
    COMPOSE = "compose"
    UNIT = "unit"
    EXEC = "exec"

    @property
    def is_docker(self) -> bool:
        return self in (AppKind.CONTAINER, AppKind.IMAGE, AppKind.COMPOSE)


class ReadyKind(StrEnum):
    """What must be seen of an application before it counts as started."""

    HEALTH = "health"
    TCP = "tcp"
    LOG = "log"
    NOTIFY = "notify"
    NONE = "none"


class CheckerKind(StrEnum):
    """What a checker asks. Exactly one of these keys stands in its table."""

    HTTP = "http"
    TCP = "tcp"
    EXEC = "exec"
    CONTAINER = "container"
    UNIT = "unit"
    PROCESS = "process"
    PING = "ping"
    LINK = "link"
    VIP = "vip"
    DISK = "disk"
    MOUNT = "mount"
    DOCKER = "docker"
    POSTGRESQL = "postgresql"
    REDIS = "redis"
    MYSQL = "mysql"

    @property
    def concerns_takeover(self) -> bool:
        """Whether a standby needs what it asks for, to take over."""
        return self in (CheckerKind.LINK, CheckerKind.DISK, CheckerKind.MOUNT, CheckerKind.DOCKER)


class RunsOn(StrEnum):
    """In which role a checker runs."""

    PRIMARY = "primary"
    BOTH = "both"


class OnFailure(StrEnum):
    RESTART = "restart"
    FAILOVER = "failover"
    STOP = "stop"
    NOTIFY = "notify"


@dataclass(frozen=True, slots=True)
class Cluster:
    name: str
    failover: Failover = Failover.AUTOMATIC
    preferred: str | None = None
    resync_rate: int = 0
    """Bytes a second; 0: no bound."""
    snapshot_before_resync: bool = False


@dataclass(frozen=True, slots=True)
class Timing:
    heartbeat: Seconds = 0.2
    detect: Seconds = 2.0


@dataclass(frozen=True, slots=True)
class Link:
    """One heartbeat network: the address of each node on it."""

    name: str
    addresses: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Vip:
    name: str
    address: IPv4Interface | IPv6Interface
    interface: str


@dataclass(frozen=True, slots=True)
class Replicate:
    """One replicated directory; `path` is absolute and normalised. That of a volume is where
    this node's Docker keeps it."""

    name: str
    path: Path
    durability: Durability = Durability.WRITE
    docker_volume: str | None = None


@dataclass(frozen=True, slots=True)
class Healthcheck:
    """`test` as the Docker API has it; what is None is left to Docker."""

    test: tuple[str, ...]
    interval: Seconds | None = None
    timeout: Seconds | None = None
    start_period: Seconds | None = None
    retries: int | None = None


@dataclass(frozen=True, slots=True)
class DockerOptions:
    """Options of a container beside the common ones; each is named after that of `docker run`."""

    env_file: tuple[str, ...] = ()
    user: str | None = None
    hostname: str | None = None
    entrypoint: tuple[str, ...] = ()
    workdir: str | None = None
    privileged: bool = False
    init: bool = False
    gpus: str | None = None
    memory: int | None = None
    """Bytes."""
    cpus: float | None = None
    ulimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Soft and hard limit."""
    capabilities: tuple[str, ...] = ()
    drop_capabilities: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    log_driver: str | None = None
    log_options: Mapping[str, str] = field(default_factory=dict)
    healthcheck: Healthcheck | None = None
    read_only: bool = False
    tmpfs: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()
    stop_signal: str | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """`target` is a host and a port, or a regular expression, or empty."""

    kind: ReadyKind
    target: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.target}" if self.target else str(self.kind)


@dataclass(frozen=True, slots=True)
class App:
    """One application. `target` is the value of the key that `kind` names."""

    name: str
    kind: AppKind
    target: str
    ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    network: str | None = None
    options: DockerOptions = DockerOptions()
    profiles: tuple[str, ...] = ()
    env_files: tuple[str, ...] = ()
    exec_stop: str | None = None
    exec_status: str | None = None
    ready: Ready | None = None
    """None: what the application itself offers: its health check, its unit's own start."""
    start_timeout: Seconds = 300.0
    stop_timeout: Seconds = 10.0
    after: tuple[str, ...] = ()
    max_restarts: int = 3
    restart_window: Seconds = 86_400.0


@dataclass(frozen=True, slots=True)
class Checker:
    """One checker. `target` is the value of the key that `kind` names."""

    name: str
    kind: CheckerKind
    target: str
    """Empty for `docker`, of which there is one."""
    on: RunsOn
    app: str | None = None
    interval: Seconds = 2.0
    timeout: Seconds = 1.0
    failures: int = 3
    successes: int = 1
    on_failure: OnFailure = OnFailure.RESTART
    status: int | None = None
    body: str | None = None
    check_certificate: bool = False
    certificate_left: Seconds | None = None
    free: str = "5%"
    """A percentage, or a number of bytes."""


@dataclass(frozen=True, slots=True)
class Witness:
    """Addresses, address:port, and URLs with an address; at least one of them altogether."""

    ping: tuple[str, ...] = ()
    tcp: tuple[str, ...] = ()
    http: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Arbiter:
    """The members of one etcd cluster, by their URLs; asked in this order."""

    etcd: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SplitBrain:
    keep: Keep = Keep.MANUAL


@dataclass(frozen=True, slots=True)
class Config:
    """The whole file. `digest` identifies its text, so that nodes can compare theirs."""

    source: Path
    digest: str
    cluster: Cluster
    timing: Timing
    nodes: tuple[str, str]
    links: tuple[Link, ...]
    vips: tuple[Vip, ...] = ()
    replicate: tuple[Replicate, ...] = ()
    apps: tuple[App, ...] = ()
    checkers: tuple[Checker, ...] = ()
    witness: Witness | None = None
    arbiter: Arbiter | None = None
    splitbrain: SplitBrain = SplitBrain()

    def peer_of(self, node: str) -> str:
        """The name of the other node. Raises ValueError if `node` is not in the cluster."""
        first, second = self.nodes
        if node == first:
            return second
        if node == second:
            return first
        raise ValueError(f"{node} is not a node of the cluster {self.cluster.name}")
