# SPDX-License-Identifier: Apache-2.0
"""The pair with more in its configuration, for a while; and looks at what runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

from .cluster import CONFIG, Pair
from .node import Node
from .waiting import until


@contextlib.contextmanager
def configured(
    pair: Pair,
    more: str,
    prepare: Callable[[Node], None] = lambda node: None,
    tidy: Callable[[Node], None] = lambda node: None,
) -> Iterator[None]:
    """`prepare` on both nodes before it, `tidy` when it is over."""
    for node in pair.nodes:
        prepare(node)
    try:
        pair.reconfigure(CONFIG + more)
        yield
    finally:
        pair.reconfigure(CONFIG)
        for node in pair.nodes:
            tidy(node)


def inspected(node: Node, container: str) -> dict[str, Any] | None:
    """`docker inspect`, None if there is no such container."""
    shown = node.exec("docker", "inspect", container, check=False)
    return dict(json.loads(shown.stdout)[0]) if shown.returncode == 0 else None


def running(node: Node, container: str) -> bool:
    found = inspected(node, container)
    return found is not None and bool(found["State"]["Running"])


def active(node: Node, *units: str) -> bool:
    shown = node.exec("systemctl", "is-active", *units, check=False)
    return shown.stdout.split() == ["active"] * len(units)


def said(node: Node, unit: str) -> str:
    """What a unit has said since the node's last boot."""
    return node.journal("-b", "-o", "cat", "-u", unit)


def wait_said(node: Node, unit: str, words: str, within: float = 10.0) -> None:
    until(
        lambda: words in said(node, unit),
        f"{words!r} in the journal of {unit}",
        within=within,
        hint=lambda: said(node, unit)[-2000:],
    )


def swap(pair: Pair) -> tuple[Node, Node]:
    """The new primary and the new standby."""
    old, new = pair.primary, pair.standby
    new.exec("hactl", "swap", timeout=180)
    pair.wait({new.name: "PRIM", old.name: "SECOND"}, within=60)
    return new, old
