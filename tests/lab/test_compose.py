# SPDX-License-Identifier: Apache-2.0
"""A compose project under the control of the cluster: its policies, health, order, volumes."""

from __future__ import annotations

import pytest

from .cluster import Pair
from .node import Node
from .reconfigured import active, configured, inspected, running, said, swap, wait_said
from .waiting import until

FILE = "/srv/compose/compose.yaml"
VOLUME = "/var/lib/docker/volumes/shopdata/_data"
PROJECT = """
services:
  redis:
    image: redis-demo:1
    command: ["redis-server", "--dir", "/data", "--appendonly", "yes", "--appendfsync", "always"]
    restart: always
    volumes: ["data:/data", "scratch:/scratch"]
    healthcheck:
      test: ["CMD-SHELL", "test -e /data/appendonlydir"]
      interval: 1s
  prepare:
    image: web:1
    command: ["sh", "-c", "echo ${WORD} >/data/prepared"]
    volumes: ["data:/data"]
  web:
    image: web:1
    restart: unless-stopped
    depends_on:
      redis:
        condition: service_healthy
  extra:
    image: web:1
    profiles: ["extra"]
  unwanted:
    image: web:1
    profiles: ["unwanted"]
volumes:
  data:
    external: true
    name: shopdata
  scratch:
"""
MORE = f"""
[replicate.shop]
docker_volume = "shopdata"
[app.shop]
compose = "{FILE}"
profiles = ["extra"]
env_files = ["/srv/compose/shop.env"]
"""
UNIT = "ha-app@shop.service"
RUN = ("redis", "web", "extra")


def name(service: str) -> str:
    return f"compose_{service}_1"


def prepare(node: Node) -> None:
    if node.exec(
        "sh", "-c", "docker compose version || command -v docker-compose", check=False
    ).returncode:
        node.install("docker-compose")
    node.put(FILE, PROJECT)
    node.put("/srv/compose/shop.env", "WORD=bread\n")
    node.exec("docker", "volume", "create", "shopdata")


def tidy(node: Node) -> None:
    node.exec("sh", "-c", "docker rm --force $(docker ps -aq --filter name=compose_)", check=False)
    node.exec("docker", "volume", "rm", "shopdata", "compose_scratch", check=False)


def all_run(node: Node) -> bool:
    return active(node, UNIT) and all(running(node, name(service)) for service in RUN)


def test_compose_project_is_one_application(pair: Pair) -> None:
    with configured(pair, MORE, prepare, tidy):
        primary, standby = pair.primary, pair.standby
        until(lambda: all_run(primary), "the project runs", within=60, hint=pair.explain)
        assert inspected(primary, name("unwanted")) is None
        for service in RUN:
            found = inspected(primary, name(service))
            assert found
            assert found["HostConfig"]["RestartPolicy"]["Name"] in ("", "no"), service
            assert inspected(standby, name(service)) is None
        told = said(primary, UNIT)
        assert f"restart policy of container {name('redis')} changed from always to no" in told
        assert f"{name('redis')} may write to volume compose_scratch at /scratch" in told
        assert "shopdata" not in told
        assert standby.exec("cat", f"{VOLUME}/prepared").stdout == "bread\n"

        # One of its containers dies: the project is started again.
        process = inspected(primary, name("web"))
        assert process
        primary.exec("docker", "kill", "--signal=KILL", name("web"))
        wait_said(primary, UNIT, f"the container {name('web')} died with exit code 137")
        until(lambda: all_run(primary), "it runs again", within=60, hint=pair.explain)

        # Somebody's `docker-compose up` on the standby comes to nothing.
        standby.exec(
            *("sh", "-c", "cd /srv/compose && WORD=stale docker-compose up -d web"), check=False
        )
        wait_said(standby, "ha-guard.service", "started here, and this node is not the primary")
        until(
            lambda: not any(running(standby, name(service)) for service in RUN),
            "none of them runs on the standby",
            within=20,
            hint=lambda: said(standby, "ha-guard.service"),
        )

        new, old = swap(pair)
        until(lambda: all_run(new), "it runs on the other node", within=60, hint=pair.explain)
        assert all(inspected(old, name(service)) is None for service in RUN), "it is down there"
        assert "shopdata" in old.exec("docker", "volume", "ls", "-q").stdout


def test_project_whose_health_never_comes_is_told(pair: Pair) -> None:
    sick = PROJECT.replace("test -e /data/appendonlydir", "echo no bread; false").replace(
        "        condition: service_healthy", "        condition: service_started"
    )

    def prepare_sick(node: Node) -> None:
        prepare(node)
        node.put(FILE, sick)

    with configured(pair, MORE, prepare_sick, tidy):
        wait_said(pair.primary, UNIT, f"{name('redis')} is unhealthy: no bread", within=60)


@pytest.fixture(autouse=True)
def quiet(pair: Pair) -> None:
    for node in pair.nodes:
        tidy(node)
