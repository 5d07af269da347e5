# SPDX-License-Identifier: Apache-2.0
"""What holds between several keys or tables, beyond the type of each.

Each rule looks at what could be read and reports what does not fit; none relies
on another one, so that one run finds every problem.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from pathlib import PurePosixPath

from tomlconfig.docker_volumes import directory_of
from tomlconfig.document import Document, Section
from tomlconfig.hints import nearest_word, one_of
from tomlconfig.model import Ready, ReadyKind
from tomlconfig.network_values import host_of

# What the cluster and the system themselves need: neither in them nor around them.
_FORBIDDEN = (
    *("/boot", "/dev", "/proc", "/run", "/sys"),
    *("/etc/haoperator", "/var/lib/haoperator", "/usr/lib/haoperator", "/usr/lib/systemd"),
)
_UNIT_NAME_MAX = 255
_UNITS_OF_THE_SYSTEM = frozenset(
    ("docker.service", "docker.socket", "containerd.service", "dbus.service", "dbus.socket")
)
STOPS_AT_MOST = 120.0
"""Seconds; a peer that asks for the role waits longer than that (ha-promote.service)."""
_READY = {
    "image": (ReadyKind.HEALTH, ReadyKind.TCP, ReadyKind.LOG, ReadyKind.NONE),
    "container": (ReadyKind.HEALTH, ReadyKind.TCP, ReadyKind.LOG, ReadyKind.NONE),
    "compose": (ReadyKind.HEALTH, ReadyKind.TCP, ReadyKind.NONE),
    "unit": (ReadyKind.TCP, ReadyKind.NONE),
    "exec": (ReadyKind.TCP, ReadyKind.NOTIFY, ReadyKind.NONE),
}


def check(document: Document) -> None:
    """Report everything in `document` that does not fit together."""
    for rule in _RULES:
        rule(document)


def _nodes(document: Document) -> None:
    nodes = document.all("node")
    if nodes and len(nodes) != 2:
        names = " and ".join(node.name for node in nodes)
        hint = "one table [node.NAME] for each, by host name"
        document.report(nodes[-1].path, f"expected exactly two nodes, got {names}", hint)
    preferred = document.one("cluster").get("preferred", str)
    if preferred is not None:
        _known(document, ("cluster", "preferred"), preferred, nodes, "node")


_HEARTBEATS = 5
"""The least `detect`, in heartbeats. An answer of a witness counts for detect / 2 and the level
is told with each beat, so the question was asked after the paths were cut if
2 * heartbeat + detect / 2 < detect; half a beat is left for lateness (architecture, section 7)."""


def _timing(document: Document) -> None:
    timing = document.one("timing")
    heartbeat, detect = timing.get("heartbeat", float), timing.get("detect", float)
    if heartbeat and detect and detect < _HEARTBEATS * heartbeat - 1e-9:
        least, most = _HEARTBEATS * heartbeat, detect / _HEARTBEATS
        document.report(
            ("timing", "detect" if "detect" in timing.given else "heartbeat"),
            f"expected detect to be at least {_HEARTBEATS} times heartbeat, {least:g} s, "
            f"got {detect:g} s",
            f'write heartbeat = "{most * 1000:g}ms", or detect = "{least:g}s", or what is between: '
            "a loss of the peer is decided on evidence that must be newer than the loss",
        )


def _links(document: Document) -> None:
    nodes = {node.name for node in document.all("node")}
    seen: dict[str, str] = {}
    for link in document.all("link"):
        for node in sorted(link.given - nodes):
            message = f"expected the name of a node, got {node}"
            hint = nearest_word(node, nodes) or f"nodes: {', '.join(sorted(nodes))}"
            document.report((*link.path, node), message, hint)
        for node in sorted(nodes - link.given):
            document.report(link.path, f"the address of the node {node} is missing")
        families = set()
        for node, address in link.values.items():
            families.add(ip_address(str(address)).version)
            place = f"{link.name}.{node}"
            if (other := seen.setdefault(str(address), place)) != place:
                message = f"expected an address of its own, got that of link.{other}, {address}"
                document.report((*link.path, node), message)
        if len(families) > 1:
            document.report(link.path, "expected both addresses to be IPv4, or both IPv6")


def _vips(document: Document) -> None:
    seen = {
        ip_address(str(address)): f"link.{link.name}.{node}"
        for link in document.all("link")
        for node, address in link.values.items()
    }
    for vip in document.all("vip"):
        address = vip.values.get("address")
        if not isinstance(address, IPv4Interface | IPv6Interface):
            continue
        place = f"vip.{vip.name}"
        if (other := seen.setdefault(address.ip, place)) != place:
            message = f"expected an address of its own, got that of {other}, {address.ip}"
            document.report((*vip.path, "address"), message)


def _directories(document: Document) -> None:
    seen: list[tuple[PurePosixPath, str]] = []
    for section in document.all("replicate"):
        text, volume = section.get("path", str), section.get("docker_volume", str)
        if volume is not None:
            text = directory_of(volume)
        if text is None:
            continue
        key = "path" if volume is None else "docker_volume"
        path, place = PurePosixPath(text), (*section.path, key)
        if text == "/":
            document.report(place, "the root directory cannot be replicated")
            continue
        for other, name in seen:
            if path == other:
                message = f"{path} is the directory of replicate.{name} already"
                document.report(place, message, "one table is enough for a directory")
            elif path in other.parents or other in path.parents:
                message = f"{path} and {other} of replicate.{name} lie in one another"
                document.report(place, message, "replicate the outer one alone")
        for forbidden in map(PurePosixPath, _FORBIDDEN):
            if path == forbidden or path in forbidden.parents or forbidden in path.parents:
                message = f"{path} cannot be replicated, because of {forbidden}"
                document.report(place, message, "each node needs its own")
                break
        if _unit_name_length(text) > _UNIT_NAME_MAX:
            document.report(place, "the path is too long for the name of a mount unit")
        seen.append((path, section.name))


def _unit_name_length(path: str) -> int:
    """The length of the mount unit's name, where unusual bytes take four characters."""
    plain = sum(
        byte < 128 and (chr(byte).isalnum() or chr(byte) in "/_.:") for byte in path.encode()
    )
    return plain + 4 * (len(path.encode()) - plain) + len(".mount")


def _apps(document: Document) -> None:
    apps = document.all("app")
    for app in apps:
        for index, name in enumerate(app.texts("after")):
            _known(document, (*app.path, "after", index), name, apps, "app")
        if app.get("network", str) == "host" and app.texts("ports"):
            message = 'no port is published with network = "host"'
            hint = "its processes listen on this node as it is: take this key out"
            document.report((*app.path, "ports"), message, hint)
        _readiness(document, app)
        _unit_of(document, app)
    _seen_once(document, "container", "the container")
    _seen_once(document, "unit", "the unit")
    _seen_once(document, "compose", "the compose file")
    after = {app.name: app.texts("after") for app in apps}
    if cycle := _cycle(after):
        message = f"{' after '.join(cycle)}: none of them could start first"
        document.report(("app", cycle[0], "after"), message)
    else:
        _stops(document, after)


def _readiness(document: Document, app: Section) -> None:
    """What an application is ready by is something that its kind has."""
    ready = app.get("ready", Ready)
    if ready is None:
        return
    for kind, possible in _READY.items():
        if kind in app.given and ready.kind not in possible:
            words = one_of([str(word) for word in possible])
            message = f'an application with "{kind}" is ready by {words}, not by "{ready.kind}"'
            document.report((*app.path, "ready"), message)


def _unit_of(document: Document, app: Section) -> None:
    unit = app.get("unit", str) or ""
    if unit.startswith(("ha-", "haoperator")) or unit in _UNITS_OF_THE_SYSTEM:
        message = f"{unit} is needed by the cluster itself"
        document.report((*app.path, "unit"), message, "name the unit of an application")


def _seen_once(document: Document, key: str, what: str) -> None:
    seen: dict[str, str] = {}
    for app in document.all("app"):
        name = app.get(key, str)
        if name and (other := seen.setdefault(name, app.name)) != app.name:
            message = f"{what} {name} is that of app.{other} already"
            document.report((*app.path, key), message)


def _stops(document: Document, after: dict[str, tuple[str, ...]]) -> None:
    """A hand-over waits for all of them. What stops at the same time counts once."""
    own = {app.name: app.get("stop_timeout", float) or 0.0 for app in document.all("app")}
    whole: dict[str, float] = {}
    todo = list(after)
    while todo:
        name = todo[-1]
        if unknown := [other for other in after.get(name, ()) if other not in whole]:
            todo += unknown
            continue
        before = max((whole[other] for other in after.get(name, ())), default=0.0)
        whole[todo.pop()] = before + own.get(name, 0.0)
    for app in document.all("app"):
        if whole[app.name] > STOPS_AT_MOST >= whole[app.name] - own[app.name]:
            message = (
                f"{app.name} and those before it may take {whole[app.name]:g} s to stop; "
                f"a hand-over waits {STOPS_AT_MOST:g} s for all of them"
            )
            document.report((*app.path, "stop_timeout"), message, "give one of them less")


def _cycle(after: dict[str, tuple[str, ...]]) -> list[str]:
    """One way round in circles, from a name back to itself; empty if there is none."""
    done: set[str] = set()
    for start in after:
        way, todo = [start], [iter(after[start])]
        while todo:
            following = next((name for name in todo[-1] if name not in done), None)
            if following is None:
                done.add(way.pop())
                todo.pop()
            elif following in way:
                return [*way[way.index(following) :], following]
            else:
                way.append(following)
                todo.append(iter(after.get(following, ())))
    return []


def _checkers(document: Document) -> None:
    apps = document.all("app")
    for checker in document.all("checker"):
        app = checker.get("app", str)
        if app is not None:
            _known(document, (*checker.path, "app"), app, apps, "app")
        elif (action := checker.get("on_failure", str)) in ("restart", "stop") and (
            "app" not in checker.given
        ):
            key = ("on_failure",) if "on_failure" in checker.given else ()
            document.report(
                (*checker.path, *key),
                f'on_failure = "{action}" needs the key "app"',
                'name the application, or write on_failure = "failover" or "notify"',
            )
        _what_is_checked(document, checker)
        interval, timeout = checker.get("interval", float), checker.get("timeout", float)
        if interval and timeout and timeout > interval:
            message = f"expected at most the interval, {interval:g} s, got {timeout:g} s"
            document.report((*checker.path, "timeout"), message)


def _what_is_checked(document: Document, checker: Section) -> None:
    vip, url = checker.get("vip", str), checker.get("http", str)
    if vip is not None:
        _known(document, (*checker.path, "vip"), vip, document.all("vip"), "vip")
        if checker.get("on", str) == "both":
            message = "a virtual IP is where the primary is, and nowhere else"
            document.report((*checker.path, "on"), message, "take this key out")
    if checker.get("docker", bool) is False:
        message = "expected true, got false"
        document.report((*checker.path, "docker"), message, "take this table out")
    for key in ("check_certificate", "certificate_left"):
        if key in checker.given and url is not None and not url.startswith("https:"):
            message = "this key goes with a URL of https only"
            document.report((*checker.path, key), message, f"the URL is {url}")


def _witness(document: Document) -> None:
    own = {str(address) for link in document.all("link") for address in link.values.values()}
    own |= {
        str(vip.values["address"]).partition("/")[0]
        for vip in document.all("vip")
        if "address" in vip.values
    }
    for key in ("ping", "tcp", "http"):
        for index, target in enumerate(document.one("witness").texts(key)):
            if (address := target if key == "ping" else host_of(target)) in own:
                message = f"{address} belongs to the cluster itself"
                hint = "name something outside of it, such as the router"
                document.report(("witness", key, index), message, hint)


def _arbiter(document: Document) -> None:
    vips = {
        str(vip.values["address"]).partition("/")[0]
        for vip in document.all("vip")
        if "address" in vip.values
    }
    for index, url in enumerate(document.one("arbiter").texts("etcd")):
        if (host := host_of(url)) in vips:
            message = f"expected no virtual IP, got {host}, which is where the primary is"
            hint = "name the members of the store by their own addresses"
            document.report(("arbiter", "etcd", index), message, hint)


def _known(
    document: Document,
    path: tuple[str | int, ...],
    name: str,
    sections: Iterable[Section],
    what: str,
) -> None:
    names = [section.name for section in sections]
    if name not in names:
        hint = nearest_word(name, names) or (f"there is {one_of(names, '')}" if names else "")
        document.report(path, f"there is no [{what}.{name}]", hint)


_RULES: tuple[Callable[[Document], None], ...] = (
    _nodes,
    _timing,
    _links,
    _vips,
    _directories,
    _apps,
    _checkers,
    _witness,
    _arbiter,
)
