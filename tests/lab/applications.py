# SPDX-License-Identifier: Apache-2.0
"""Real applications on the pair: how each is put under load, and how it checks itself."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from . import debian_image, pgbench
from .cluster import CONFIG, DATA, Pair
from .command import LabError
from .customer import Customer
from .node import Node
from .workshop import Work

WORKSHOP = ["python3", "-c", "import signal; signal.pause()"]
WITH_APPLICATIONS = f"""{CONFIG}
[app.postgres]
image = "{debian_image.NAME}"
ports = ["5432:5432"]
volumes = ["{DATA}:/data"]
command = {json.dumps(pgbench.SERVER)}

[app.workshop]
image = "{debian_image.NAME}"
volumes = ["{DATA}:/data"]
command = {json.dumps(WORKSHOP)}
"""


def set_up(pair: Pair) -> None:
    """Loads the image on both nodes, makes the database's directory, and puts the applications
    into the configuration."""
    image = debian_image.provide(pair.lab.place.cache)
    pair.lab.on_both(lambda node: pair.lab.load(node, image))
    volume = ("-v", f"{DATA}:/data")
    making = ("docker", "run", "--rm", "-i", *volume, debian_image.NAME, "sh", "-c", pgbench.INITDB)
    pair.primary.exec(*making, stdin=pgbench.POSTGRESQL_CONF, timeout=120)
    pair.reconfigure(WITH_APPLICATIONS)


def is_set_up(pair: Pair) -> bool:
    return "postgres" in [app["name"] for app in pair.status(pair.primary)["apps"]]


class Application(Protocol):
    """One application under load. Closed at the end, whatever happened."""

    def start(self) -> None:
        """Puts it under load; returns when the load runs."""

    def wait(self) -> None:
        """Returns when enough has been acknowledged for a takeover to be worth it."""

    def check(self, node: Node) -> str:
        """Ends the load; raises LabError unless `node`, which serves now, has all that was
        acknowledged, and the application's own check passes. Says what was checked."""

    def close(self) -> None: ...


class Redis:
    """Increments through the virtual IP; Redis fsyncs each before it answers."""

    def __init__(self, pair: Pair, directory: Path) -> None:
        self.client = Customer(pair.lab, directory / "client.log")

    def start(self) -> None:
        self.client.wait_acks(1)

    def wait(self) -> None:
        self.client.wait_acks(300, within=60)

    def check(self, node: Node) -> str:
        self.client.wait_acks(100, within=60)
        report = self.client.pause()
        if report["lost"]:
            raise LabError(f"{report['lost']} acknowledged increments lost", str(self.client.log))
        for key, value in report["values"].items():
            there = int(node.exec("redis-cli", "get", key).stdout)
            if there < value:
                raise LabError(f"{key} is {there}, and {value} was acknowledged")
        manifest = f"{DATA}/appendonlydir/appendonly.aof.manifest"
        node.exec("redis-check-aof", manifest)
        return f"{report['acks']} increments"

    def close(self) -> None:
        self.client.close()


@contextlib.contextmanager
def under_load(name: str, pair: Pair, directory: Path) -> Iterator[Application]:
    """An application by its name, working."""
    app: Application
    match name:
        case "postgresql":
            app = pgbench.Postgres(pair, directory)
        case "redis":
            app = Redis(pair, directory)
        case "sqlite":
            app = Work("sqlite", 300, pair, directory)
        case "git":
            app = Work("git", 12, pair, directory)
        case "untar":
            app = Work("untar", 8, pair, directory)
        case _:
            raise LabError(f"there is no application {name}")
    try:
        app.start()
        yield app
    finally:
        app.close()
