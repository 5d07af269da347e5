# SPDX-License-Identifier: Apache-2.0
"""What both nodes say on their buses, recorded while a scenario runs.

`busctl monitor` in each node is the witness: it is independent of our own code,
and stamps every signal with the real-time clock that all nodes share here.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .command import clean_environment
from .lab import Lab
from .node import Node
from .waiting import until

MATCH = "type='signal',path_namespace='/org/haoperator1'"
STATE = ("org.haoperator1", "/org/haoperator1", "org.haoperator1.Cluster", "State")
PROPERTIES = "org.freedesktop.DBus.Properties"


@dataclass(frozen=True, slots=True)
class Signal:
    """One signal: when, from which node, and what."""

    time: float
    node: str
    path: str
    interface: str
    member: str
    body: tuple[Any, ...]

    def changed(self, interface: str, name: str) -> Any:
        """The new value of a property that this signal announces, else None."""
        if self.interface != PROPERTIES or self.body[0] != interface:
            return None
        variant = self.body[1].get(name)
        return None if variant is None else variant["data"]


class BusRecord:
    """The recording. A node that lost its power is taken up again with `listen`."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.parts: list[tuple[str, Path]] = []
        self.observed: list[Signal] = []
        self.monitors: list[subprocess.Popen[bytes]] = []

    def listen(self, node: Node) -> None:
        """Records `node` from now on; returns when the recording runs."""
        part = self.directory / f"bus-{node.name}-{len(self.parts)}.json"
        with part.open("wb") as out:
            monitor = subprocess.Popen(
                [*node.entering(), "busctl", "monitor", "--json=short", "--match", MATCH],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=clean_environment(),
            )
        self.parts.append((node.name, part))
        self.monitors.append(monitor)
        until(lambda: b"Monitoring" in part.read_bytes(), f"a monitor on {node.name}", within=10)
        self._observe(node)

    def _observe(self, node: Node) -> None:
        """Notes the state that the node is in already; its signal may have come before us."""
        shown = node.exec("busctl", "--json=short", "get-property", *STATE, check=False)
        if shown.returncode == 0:
            body = ("", json.loads(shown.stdout)["data"], "observed")
            seen = Signal(time.time(), node.name, STATE[1], STATE[2], "Transitioned", body)
            self.observed.append(seen)

    def signals(self) -> list[Signal]:
        """All that was heard so far, in order of time."""
        heard = list(self.observed)
        for node, part in self.parts:
            for line in part.read_text(errors="replace").splitlines():
                with contextlib.suppress(ValueError, KeyError):
                    heard.append(read(node, json.loads(line)))
        # A dying bus says goodbye to its monitor, on a path of its own.
        ours = (s for s in heard if s.path.startswith("/org/haoperator1"))
        return sorted(ours, key=lambda s: s.time)

    def close(self) -> None:
        for monitor in self.monitors:
            monitor.terminate()
            try:
                monitor.wait(5)
            except subprocess.TimeoutExpired:
                monitor.kill()
                monitor.wait()


def read(node: str, message: dict[str, Any]) -> Signal:
    return Signal(
        time=message["timestamp-realtime"] / 1e6,
        node=node,
        path=message["path"],
        interface=message["interface"],
        member=message["member"],
        body=tuple(message["payload"]["data"]),
    )


@contextlib.contextmanager
def recording(lab: Lab, directory: Path) -> Iterator[BusRecord]:
    """Records both nodes for the length of the block."""
    record = BusRecord(directory)
    try:
        for node in lab.nodes.values():
            if node.powered:
                record.listen(node)
        yield record
    finally:
        record.close()


def first(
    signals: list[Signal], node: str, after: float, *, member: str = "", role: str = ""
) -> float | None:
    """When `node` first sent the signal `member`, or its replicator took on `role`."""
    for s in signals:
        if s.node != node or s.time < after:
            continue
        if member and s.member == member:
            return s.time
        if role and s.changed("org.haoperator1.Replicator", "Role") == role:
            return s.time
    return None
