# SPDX-License-Identifier: Apache-2.0
"""A container that somebody made with `docker create`, on both nodes, comes under control."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from .cluster import CONFIG, Pair
from .node import Node
from .waiting import until

NAME = "shop-web"
WITH_WEB = CONFIG + f'\n[app.web]\ncontainer = "{NAME}"\nafter = ["redis"]\n'


def inspected(node: Node) -> dict[str, Any]:
    return dict(json.loads(node.exec("docker", "inspect", NAME).stdout)[0])


def running(node: Node) -> bool:
    return bool(inspected(node)["State"]["Running"])


@contextlib.contextmanager
def web_application(pair: Pair) -> Iterator[None]:
    create = ("docker", "create", "--name", NAME, "--restart=always", "--stop-signal=KILL")
    for node in pair.nodes:
        node.exec(*create, "web:1")
    try:
        pair.reconfigure(WITH_WEB)
        yield
    finally:
        pair.reconfigure(CONFIG)
        for node in pair.nodes:
            node.exec("docker", "rm", "--force", NAME)


def test_container_that_exists_runs_on_the_primary_and_moves_with_it(pair: Pair) -> None:
    with web_application(pair):
        primary, standby = pair.primary, pair.standby
        until(lambda: running(primary), "it runs on the primary", within=20, hint=pair.explain)
        assert not running(standby)
        policy = inspected(primary)["HostConfig"]["RestartPolicy"]["Name"]
        assert policy == "no", "Docker would start it on a standby too"

        process = inspected(primary)["State"]["Pid"]
        primary.exec("docker", "kill", "--signal=KILL", NAME)
        until(
            lambda: running(primary) and inspected(primary)["State"]["Pid"] != process,
            "it is restarted in place",
            within=20,
            hint=pair.explain,
        )

        standby.exec("hactl", "swap")
        pair.wait({standby.name: "PRIM", primary.name: "SECOND"}, within=30)
        until(lambda: running(standby), "it moved with the role", within=20, hint=pair.explain)
        assert not running(primary)
