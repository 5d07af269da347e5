# SPDX-License-Identifier: Apache-2.0
"""One object on the bus for each link, replicated directory, VIP, application and checker."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dbus_next.service import ServiceInterface

from haoperator.api.interface import PartInterface
from haoperator.systemd import names
from haoperator.systemd.claims import claimed
from tomlconfig import Config

_LISTS = {"replica": "replication", "vip": "vips", "app": "apps", "checker": "checkers"}
"""Where the report has the parts of each kind; a link has no state but up or down."""


class Parts:
    """The objects below `/org/haoperator1`, fed from the report."""

    def __init__(self, config: Config) -> None:
        self._parts = {(part.kind, part.part): part for part in _parts_of(config)}

    def exports(self) -> dict[str, list[ServiceInterface]]:
        return {part.path: [part] for part in self._parts.values()}

    def announce(self, document: dict[str, Any]) -> None:
        """Let each object show what the report says of it."""
        for link in document["links"]:
            self._parts["link", link["name"]].announce("up" if link["up"] else "down")
        for kind, key in _LISTS.items():
            for part in document[key]:
                self._parts[kind, part["name"]].announce(part["state"])


def _parts_of(config: Config) -> Iterator[PartInterface]:
    for link in config.links:
        yield PartInterface("link", link.name, "")
    elsewhere = claimed(replica.path for replica in config.replicate)
    for replica in config.replicate:
        unit = names.covering(replica.name, replica.path, elsewhere)
        yield PartInterface("replica", replica.name, unit)
    for vip in config.vips:
        yield PartInterface("vip", vip.name, names.vip(vip.name))
    for app in config.apps:
        yield PartInterface("app", app.name, names.app(app.name))
    for checker in config.checkers:
        yield PartInterface("checker", checker.name, names.checker(checker.name))
