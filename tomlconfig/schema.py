# SPDX-License-Identifier: Apache-2.0
"""The language: every table and every key that there is, in one place.

Reading, the nearest known key in an error, and the reference in the
documentation all come from `TABLES`. What is not `supported` is known, and is
refused as "not supported yet": a key never does nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from tomlconfig import app_values as apps
from tomlconfig import docker_values as docker
from tomlconfig import network_values as net
from tomlconfig import values as v
from tomlconfig.grammar import Key, Table, later

_CLUSTER = Table(
    "cluster",
    "The cluster as a whole.",
    required=True,
    keys=(
        Key("name", v.NAME, "what the cluster is called", required=True),
        Key(
            "failover",
            v.TEXT,
            "whether the standby takes over by itself when the primary is lost",
            default="automatic",
            choices=("automatic", "manual"),
        ),
        Key("preferred", v.NAME, "the node that is primary when both could be"),
        Key(
            "resync_rate",
            v.SIZE,
            "the most that a resync copies in a second; without it, it leaves the applications "
            "their time and is as fast as it can",
            at_least="64KiB",
            at_most="1TB",
        ),
        Key(
            "snapshot_before_resync",
            v.FLAG,
            "whether a standby keeps reflink copies of its directories while a resync makes them "
            "a mixture (btrfs, xfs), so that it can be promoted to that state by force",
            default=False,
        ),
    ),
)

_TIMING = Table(
    "timing",
    "How fast the loss of the peer is noticed.",
    keys=(
        Key(
            "heartbeat",
            v.DURATION,
            "how often a node shows its peer that it lives",
            default="200ms",
            at_least="10ms",
            at_most="10s",
        ),
        Key(
            "detect",
            v.DURATION,
            "silence on all links after which the peer is lost; at least 5 heartbeats",
            default="2s",
            at_least="200ms",
            at_most="5m",
        ),
        later("lease", "how long a primary may write without having heard anybody"),
    ),
)

_MACROS = Table(
    "macros",
    "Texts to be used as ${NAME} in any string, here in those that follow; $${ stands for ${.",
    free_keys=apps.ARGUMENT,
)

_NODE = Table(
    "node",
    "A node, found by its host name. There are exactly two.",
    named=True,
    required=True,
    also_called=("nodes", "host"),
)

_LINK = Table(
    "link",
    "A heartbeat network: the address of each node on it. The order of the links is the "
    "preference for replication.",
    named=True,
    required=True,
    free_keys=net.ADDRESS,
    also_called=("heartbeat", "network"),
)

_VIP = Table(
    "vip",
    "A virtual IP address, which is where the primary is.",
    named=True,
    also_called=("ip", "virtual_ip"),
    keys=(
        Key("address", net.PREFIXED_ADDRESS, "the address with its prefix length", required=True),
        Key(
            "interface",
            net.INTERFACE,
            "the interface that carries it, on both nodes",
            required=True,
        ),
    ),
)

_REPLICATE = Table(
    "replicate",
    "A directory that is the same on both nodes. It exists already; nothing is moved.",
    named=True,
    one_of=("path", "docker_volume"),
    also_called=("replicated", "directory", "volume"),
    keys=(
        Key("path", apps.PATH, "the directory", also_called=("directory", "dir")),
        Key(
            "durability",
            v.TEXT,
            "when a write returns: `write`, when the peer has it too; `fsync`, at once, and fsync "
            "returns when it is on disk on both nodes",
            default="write",
            choices=("write", "fsync"),
        ),
        Key(
            "docker_volume",
            docker.VOLUME_NAME,
            "a named volume of Docker's driver `local` instead of a path; `docker volume create` "
            "made it, on both nodes",
        ),
        later("exclude", "patterns of names that are not replicated", "ignore"),
        later("include", "patterns of names that are replicated, all others are not"),
    ),
)

_IMAGE_ONLY = ("image",)

_DOCKER_OPTIONS = tuple(
    Key(name, kind, meaning, default=default, only_with=_IMAGE_ONLY, also_called=also_called)
    for name, kind, meaning, default, also_called in (
        (
            "env_file",
            v.list_of(apps.PATH),
            "files with lines NAME=VALUE, on both nodes; `environment` goes before them",
            [],
            (),
        ),
        ("user", docker.USER, "who the processes in it are", None, ()),
        ("hostname", docker.HOST_NAME, "what the container calls itself", None, ()),
        (
            "entrypoint",
            v.list_of(apps.ARGUMENT),
            "the entry point instead of the image's own, word by word",
            [],
            (),
        ),
        ("workdir", docker.PATH_INSIDE, "the working directory in it", None, ("working_dir",)),
        ("privileged", v.FLAG, "whether it may do what root on this node may", False, ()),
        ("init", v.FLAG, "whether a small init of Docker's reaps its processes", False, ()),
        ("gpus", docker.GPUS, "the GPUs that it sees", None, ()),
        ("ulimits", docker.ULIMITS, "limits of its processes", {}, ("ulimit",)),
        (
            "capabilities",
            v.list_of(docker.CAPABILITY),
            "capabilities beyond those that Docker gives",
            [],
            ("cap_add",),
        ),
        (
            "drop_capabilities",
            v.list_of(docker.CAPABILITY),
            'capabilities that it does not have, `"ALL"` for all',
            [],
            ("cap_drop",),
        ),
        ("devices", v.list_of(docker.DEVICE), "devices of this node", [], ("device",)),
        ("labels", docker.LABELS, "labels of the container", {}, ("label",)),
        ("log_driver", docker.DRIVER, "where its output goes", None, ()),
        ("log_options", docker.LOG_OPTIONS, "options of the log driver", {}, ("log_opt",)),
        (
            "healthcheck",
            docker.HEALTHCHECK,
            "a health check instead of the image's own: `command`, `interval`, `timeout`, "
            "`start_period`, `retries`; or `{ disable = true }`",
            None,
            ("health",),
        ),
        ("read_only", v.FLAG, "whether its own file system is read-only", False, ()),
        ("tmpfs", v.list_of(docker.TMPFS), "directories in memory", [], ()),
        (
            "extra_hosts",
            v.list_of(docker.EXTRA_HOST),
            "names that it knows beside those of DNS",
            [],
            ("add_host",),
        ),
        ("dns", v.list_of(net.ADDRESS), "DNS servers instead of this node's", [], ()),
        ("stop_signal", docker.SIGNAL, "the signal that ends it in order", None, ()),
    )
) + (
    Key(
        "memory",
        v.SIZE,
        "the most memory that it may have",
        at_least="6MiB",
        at_most="1000TB",
        only_with=_IMAGE_ONLY,
    ),
    Key(
        "cpus",
        docker.CPUS,
        "how many CPUs it may keep busy",
        at_least=0.01,
        at_most=4096,
        only_with=_IMAGE_ONLY,
    ),
)

_APP = Table(
    "app",
    "An application, which runs where the primary is.",
    named=True,
    one_of=("container", "image", "compose", "unit", "exec"),
    also_called=("application", "container", "service"),
    keys=(
        Key("container", v.TEXT, "a container that exists on both nodes"),
        Key("image", v.TEXT, "an image, of which the cluster makes the container"),
        Key("compose", apps.PATH, "a compose file; its project is run as a whole"),
        Key("unit", apps.UNIT, "a unit of systemd, on both nodes, not enabled"),
        Key(
            "exec",
            apps.COMMAND_LINE,
            "a command that is the application as long as it runs; with `exec_status`, one that "
            "starts it and ends. No shell is involved",
        ),
        Key(
            "exec_stop",
            apps.COMMAND_LINE,
            "a command that stops it; without it, SIGTERM does",
            only_with=("exec",),
        ),
        Key(
            "exec_status",
            apps.COMMAND_LINE,
            "a command that exits with 0 while it runs, asked every 5 seconds",
            only_with=("exec",),
        ),
        Key(
            "ports",
            v.list_of(apps.PORT),
            "ports that are published, as in `docker run -p`",
            default=[],
            only_with=_IMAGE_ONLY,
            also_called=("publish",),
        ),
        Key(
            "volumes",
            v.list_of(apps.VOLUME),
            "directories and volumes, as in `docker run -v`",
            default=[],
            only_with=_IMAGE_ONLY,
            also_called=("mounts",),
        ),
        Key(
            "environment",
            apps.STRINGS_BY_NAME,
            "environment variables",
            default={},
            only_with=("image", "exec"),
            also_called=("env",),
        ),
        Key(
            "command",
            v.list_of(apps.ARGUMENT),
            "the command instead of the image's own, word by word",
            default=[],
            only_with=_IMAGE_ONLY,
            also_called=("cmd", "args"),
        ),
        Key(
            "network",
            v.TEXT,
            "the Docker network, `host` included, instead of the bridge",
            only_with=_IMAGE_ONLY,
        ),
        Key("after", v.list_of(v.NAME), "applications that start before this one", default=[]),
        Key(
            "max_restarts",
            v.COUNT,
            "restarts in place within `restart_window`, then failover",
            default=3,
            at_least=0,
            at_most=1000,
        ),
        Key(
            "restart_window",
            v.DURATION,
            "the time in which restarts are counted",
            default="24h",
            at_least="1s",
            at_most="365d",
        ),
        *_DOCKER_OPTIONS,
        Key(
            "profiles",
            v.list_of(v.NAME),
            "profiles of the compose project",
            default=[],
            only_with=("compose",),
        ),
        Key(
            "env_files",
            v.list_of(apps.PATH),
            "files with variables for the compose file, on both nodes",
            default=[],
            only_with=("compose",),
        ),
        Key(
            "ready",
            apps.READY,
            "what must be seen before it counts as started, and the next one starts: `health`, its "
            "health check, which is the default where there is one; `tcp:HOST:PORT`, a connection; "
            "`log:REGEX`, a line in its log; `notify`, its own READY=1 (with `exec`); `none`",
        ),
        Key(
            "start_timeout",
            v.DURATION,
            "how long a start may take until it is ready",
            default="5m",
            at_least="1s",
            at_most="1d",
        ),
        Key(
            "stop_timeout",
            v.DURATION,
            "how long an orderly stop may take, before it is killed",
            default="10s",
            at_least="1s",
            at_most="2m",
        ),
    ),
)

_CHECKER = Table(
    "checker",
    "A probe of something that must work while this node is primary, or in both roles.",
    named=True,
    one_of=(
        *("http", "tcp", "exec", "container", "unit", "process", "ping", "link", "vip", "disk"),
        *("mount", "docker", "postgresql", "redis", "mysql"),
    ),
    also_called=("check", "monitor", "probe"),
    keys=(
        Key("http", net.URL, "a URL that must answer with a status from 200 to 399"),
        Key("tcp", net.HOST_PORT, "a TCP port that must accept a connection"),
        Key("exec", apps.COMMAND_LINE, "a command that must exit with 0; no shell is involved"),
        Key("container", v.TEXT, "a container that must run, and not be unhealthy"),
        Key("unit", apps.UNIT, "a systemd unit that must be active"),
        Key("process", apps.PROCESS, "a process that must exist, by its name or its program"),
        Key("ping", net.ADDRESS, "an address that must answer a ping"),
        Key("link", net.INTERFACE, "a network interface that must be up and have its carrier"),
        Key("vip", v.NAME, "a virtual IP of this file that must be on its interface"),
        Key("disk", apps.PATH, "a directory whose file system must have room, and inodes"),
        Key("mount", apps.PATH, "a directory on which something must be mounted, and answer"),
        Key("docker", v.FLAG, "`true`: the Docker daemon must answer"),
        Key(
            "postgresql",
            net.HOST_PORT,
            "a PostgreSQL server that must answer; no user is needed",
            also_called=("postgres",),
        ),
        Key("redis", net.HOST_PORT, "a Redis server that must answer; no password is needed"),
        Key(
            "mysql",
            net.HOST_PORT,
            "a MySQL or MariaDB server that must answer; no user is needed",
            also_called=("mariadb",),
        ),
        Key(
            "on",
            v.TEXT,
            "in which role it runs: `primary`, or `both`, where its failure on a standby makes "
            "that one no place to hand over to; without it `both` for `disk`, `link`, `mount` and "
            "`docker`",
            choices=("primary", "both"),
        ),
        Key("app", v.NAME, "the application that is checked, and that `on_failure` acts on"),
        Key(
            "interval",
            v.DURATION,
            "the time from one probe to the next",
            default="2s",
            at_least="100ms",
            at_most="1d",
        ),
        Key(
            "timeout",
            v.DURATION,
            "how long a probe may take, at most `interval`; without it 1s or `interval`",
            at_least="10ms",
            at_most="1h",
        ),
        Key(
            "failures",
            v.COUNT,
            "failed probes that make the checker fail, unless `successes` in a row come between",
            default=3,
            at_least=1,
            at_most=1000,
            also_called=("fall",),
        ),
        Key(
            "successes",
            v.COUNT,
            "probes in a row after which it counts as well, at the start and after a failure",
            default=1,
            at_least=1,
            at_most=1000,
            also_called=("rise",),
        ),
        Key(
            "on_failure",
            v.TEXT,
            "what is done on the primary then, and again as long as it goes on failing: restart "
            "`app`, fail over to the peer, stop `app`, or only say so",
            default="restart",
            choices=("restart", "failover", "stop", "notify"),
            also_called=("action",),
        ),
        Key(
            "status",
            v.COUNT,
            "the HTTP status that is expected instead",
            at_least=100,
            at_most=599,
            only_with=("http",),
        ),
        Key("body", v.TEXT, "a text that the answer must contain", only_with=("http",)),
        Key(
            "check_certificate",
            v.FLAG,
            "whether the certificate of https must be valid, for this host, by what this node "
            "trusts",
            default=False,
            only_with=("http",),
        ),
        Key(
            "certificate_left",
            v.DURATION,
            "the least time until the certificate of https ends",
            at_least="1m",
            at_most="3650d",
            only_with=("http",),
        ),
        Key(
            "free",
            v.SHARE,
            "the least room in the file system; a percentage holds for its inodes too, beside a "
            "size 1% of them must be free",
            default="5%",
            only_with=("disk",),
        ),
    ),
)

_WITNESS = Table(
    "witness",
    "Something outside the cluster. Reaching any of it counts as: I am not the isolated one.",
    any_of=("ping", "tcp", "http"),
    keys=(
        Key("ping", v.list_of(net.ADDRESS, may_be_empty=False), "addresses that answer a ping"),
        Key(
            "tcp",
            v.list_of(net.ADDRESS_PORT, may_be_empty=False),
            "ports that accept a connection; a refusal is no answer, because firewalls refuse too",
        ),
        Key(
            "http",
            v.list_of(net.ADDRESS_URL, may_be_empty=False),
            "URLs that are answered with any HTTP status",
        ),
    ),
)

_ARBITER = Table(
    "arbiter",
    "A store that the site runs already. With it, a node goes on alone only as the heir of the "
    "data that it names, and of that there is one.",
    keys=(
        Key(
            "etcd",
            v.list_of(net.ADDRESS_URL, may_be_empty=False),
            "client URLs of the members of one etcd cluster, version 3.4 or newer",
            required=True,
        ),
    ),
)

_SPLITBRAIN = Table(
    "splitbrain",
    "What is done when both nodes wrote without each other. Whatever differs of the data that "
    "loses is set aside before it is overwritten: `hactl splitbrain`.",
    keys=(
        Key(
            "keep",
            v.TEXT,
            "whose data wins: `manual`, an administrator says so; `former-primary`, that of the "
            "node that was primary before, where that can be told",
            default="manual",
            choices=("manual", "former-primary"),
        ),
    ),
    also_called=("split_brain",),
)

TABLES: Mapping[str, Table] = MappingProxyType(
    {
        table.name: table
        for table in (
            _CLUSTER,
            _TIMING,
            _MACROS,
            _NODE,
            _LINK,
            _VIP,
            _REPLICATE,
            _APP,
            _CHECKER,
            _WITNESS,
            _ARBITER,
            _SPLITBRAIN,
        )
    }
)
