# SPDX-License-Identifier: Apache-2.0
"""The model of a document in which no problem was found."""

from __future__ import annotations

from dataclasses import fields
from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tomlconfig.docker_volumes import directory_of
from tomlconfig.document import Document, Section
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
    Keep,
    Link,
    OnFailure,
    Ready,
    Replicate,
    RunsOn,
    SplitBrain,
    Timing,
    Vip,
    Witness,
)


def config(document: Document, digest: str) -> Config:
    """The whole of it. `document` has no problems, so whatever is needed is there."""
    first, second = (node.name for node in document.all("node"))
    return Config(
        source=document.file,
        digest=digest,
        cluster=_cluster(document.one("cluster")),
        timing=_timing(document.one("timing")),
        nodes=(first, second),
        links=tuple(map(_link, document.all("link"))),
        vips=tuple(map(_vip, document.all("vip"))),
        replicate=tuple(map(_replicate, document.all("replicate"))),
        apps=tuple(map(_app, document.all("app"))),
        checkers=tuple(map(_checker, document.all("checker"))),
        witness=_witness(document.one("witness")),
        arbiter=_arbiter(document.one("arbiter")),
        splitbrain=_splitbrain(document.one("splitbrain")),
    )


def _cluster(section: Section) -> Cluster:
    return Cluster(
        name=section.need("name", str),
        failover=Failover(section.need("failover", str)),
        preferred=section.get("preferred", str),
        resync_rate=section.get("resync_rate", int) or 0,
        snapshot_before_resync=section.need("snapshot_before_resync", bool),
    )


def _timing(section: Section) -> Timing:
    return Timing(heartbeat=section.need("heartbeat", float), detect=section.need("detect", float))


def _link(section: Section) -> Link:
    addresses = {node: str(address) for node, address in section.values.items()}
    return Link(name=section.name, addresses=MappingProxyType(addresses))


def _vip(section: Section) -> Vip:
    address = section.values["address"]
    assert isinstance(address, IPv4Interface | IPv6Interface)
    return Vip(name=section.name, address=address, interface=section.need("interface", str))


def _replicate(section: Section) -> Replicate:
    volume = section.get("docker_volume", str)
    return Replicate(
        name=section.name,
        path=Path(directory_of(volume) if volume else section.need("path", str)),
        durability=Durability(section.need("durability", str)),
        docker_volume=volume,
    )


def _app(section: Section) -> App:
    kind = AppKind(_chosen(section))
    environment: dict[str, str] = section.get("environment", dict) or {}
    return App(
        name=section.name,
        kind=kind,
        target=section.need(kind.value, str),
        ports=section.texts("ports"),
        volumes=section.texts("volumes"),
        environment=MappingProxyType(environment),
        command=section.texts("command"),
        network=section.get("network", str),
        options=_docker_options(section),
        profiles=section.texts("profiles"),
        env_files=section.texts("env_files"),
        exec_stop=section.get("exec_stop", str),
        exec_status=section.get("exec_status", str),
        ready=section.get("ready", Ready),
        start_timeout=section.need("start_timeout", float),
        stop_timeout=section.need("stop_timeout", float),
        after=section.texts("after"),
        max_restarts=section.need("max_restarts", int),
        restart_window=section.need("restart_window", float),
    )


def _docker_options(section: Section) -> DockerOptions:
    """Each key is of the type that its field has."""
    named = (field.name for field in fields(DockerOptions))
    chosen: dict[str, Any] = {n: section.values[n] for n in named if n in section.values}
    return DockerOptions(**chosen)


def _checker(section: Section) -> Checker:
    kind = CheckerKind(_chosen(section))
    interval = section.need("interval", float)
    usual = RunsOn.BOTH if kind.concerns_takeover else RunsOn.PRIMARY
    return Checker(
        name=section.name,
        kind=kind,
        target="" if kind is CheckerKind.DOCKER else section.need(kind.value, str),
        on=RunsOn(section.get("on", str) or usual),
        app=section.get("app", str),
        interval=interval,
        timeout=section.get("timeout", float) or min(1.0, interval),
        failures=section.need("failures", int),
        successes=section.need("successes", int),
        on_failure=OnFailure(section.need("on_failure", str)),
        status=section.get("status", int),
        body=section.get("body", str),
        check_certificate=section.need("check_certificate", bool),
        certificate_left=section.get("certificate_left", float),
        free=section.need("free", str),
    )


def _witness(section: Section) -> Witness | None:
    if not section.given:
        return None
    return Witness(ping=section.texts("ping"), tcp=section.texts("tcp"), http=section.texts("http"))


def _arbiter(section: Section) -> Arbiter | None:
    urls = section.texts("etcd")
    return Arbiter(etcd=urls) if urls else None


def _splitbrain(section: Section) -> SplitBrain:
    return SplitBrain(keep=Keep(section.need("keep", str)))


def _chosen(section: Section) -> str:
    """Which of the keys that exclude each other is in the table."""
    return next(key for key in section.table.one_of if key in section.given)
