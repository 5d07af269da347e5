# SPDX-License-Identifier: Apache-2.0
"""What a lab has made on the machine, written down before it is made.

A test run can be killed at any moment. The next `up`, or `down`, reads the
ledger and removes whatever is left, in an order that always works: processes,
network namespaces, cgroups, directories. Mounts and loop devices need no line:
they are made in namespaces of the nodes and vanish with them. Removing a thing
that was never made, or is gone already, is no error.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .command import LabError, run
from .lock import locked
from .waiting import until

KINDS = ("namespaces", "cgroups", "directories")


def started(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None if there is no such process.

    Together with the pid it names a process for good: proc(5), field 22 of `stat`.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


@dataclass(frozen=True, slots=True)
class Process:
    """A process that cannot be mistaken for a later one with the same pid."""

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> Process:
        start = started(pid)
        if start is None:
            raise LabError(f"process {pid} is gone already")
        return cls(pid, start)

    def alive(self) -> bool:
        return started(self.pid) == self.start

    def kill(self) -> None:
        """Kills it and waits until it is gone."""
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            until(lambda: not self.alive(), f"the end of process {self.pid}", within=10)


class Ledger:
    """The list of one lab, kept in a file that is replaced atomically."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, Any]:
        try:
            return dict(json.loads(self.path.read_text()))
        except FileNotFoundError:
            return {}

    @contextlib.contextmanager
    def change(self) -> Iterator[dict[str, Any]]:
        """What is written down, to be changed; stored atomically at the end of the block."""
        with locked(self.path.with_suffix(".lock")):
            content = self.read()
            yield content
            temporary = self.path.with_suffix(".new")
            temporary.write_text(json.dumps(content, indent=1))
            temporary.rename(self.path)

    def note(self, kind: str, item: Path | str) -> None:
        """Writes down that `item` is about to be made."""
        assert kind in KINDS
        with self.change() as content:
            items = content.setdefault(kind, [])
            if str(item) not in items:
                items.append(str(item))

    def note_leader(self, node: str, leader: Process | None) -> None:
        """Writes down which process is process 1 of `node`; None for a node without power."""
        with self.change() as content:
            content.setdefault("leaders", {})[node] = [leader.pid, leader.start] if leader else None

    def leader(self, node: str) -> Process | None:
        entry = self.read().get("leaders", {}).get(node)
        return Process(*entry) if entry else None

    @property
    def owner(self) -> Process | None:
        """The test run that the lab belongs to; None for a lab that outlives its maker."""
        entry = self.read().get("owner")
        return Process(*entry) if entry else None

    def note_owner(self, process: Process | None) -> None:
        with self.change() as content:
            content["owner"] = [process.pid, process.start] if process else None

    def clear(self) -> None:
        """Removes all that is written down here, and then the ledger itself."""
        content = self.read()
        for cgroup in content.get("cgroups", []):
            kill_cgroup(Path(cgroup))
        for leader in content.get("leaders", {}).values():
            if leader:
                Process(*leader).kill()
        for namespace in content.get("namespaces", []):
            if Path("/run/netns", namespace).exists():
                run("ip", "netns", "del", namespace)
        for cgroup in content.get("cgroups", []):
            remove_cgroup(Path(cgroup))
        for directory in content.get("directories", []):
            remove_tree(Path(directory))
        self.path.unlink(missing_ok=True)


def kill_cgroup(cgroup: Path) -> None:
    """Ends every process in `cgroup` and below it at one stroke, and waits for that."""
    if not cgroup.exists():
        return
    (cgroup / "cgroup.kill").write_text("1")
    events = cgroup / "cgroup.events"

    def dead() -> bool:
        return "populated 0" in events.read_text()

    with contextlib.suppress(LabError):
        until(dead, f"the end of all processes in {cgroup}", within=3, every=0.002)
        return
    abort_fuse_connections(cgroup)
    until(dead, f"the end of all processes in {cgroup}", within=20)


def abort_fuse_connections(cgroup: Path) -> None:
    """Frees processes that wait, unkillable, for a FUSE server that will not answer any more."""
    devices: set[str] = set()
    for procs in cgroup.rglob("cgroup.procs"):
        for pid in procs.read_text().split():
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
                    if " - fuse" in line:
                        devices.add(line.split()[2].partition(":")[2])
    with tempfile.TemporaryDirectory() as connections:
        run("mount", "-t", "fusectl", "none", connections)
        try:
            for device in devices:
                with contextlib.suppress(OSError):
                    (Path(connections) / device / "abort").write_text("1")
        finally:
            run("umount", connections)


def remove_cgroup(cgroup: Path) -> None:
    """Removes `cgroup` and what is below it; the innermost go first."""
    deadline = time.monotonic() + 5
    while cgroup.exists():
        below = sorted((p for p in cgroup.rglob("*") if p.is_dir()), reverse=True)
        with contextlib.suppress(OSError):
            for directory in (*below, cgroup):
                directory.rmdir()
            return
        if time.monotonic() > deadline:
            raise LabError(f"cannot remove the cgroup {cgroup}", f"cat {cgroup}/cgroup.procs")
        time.sleep(0.02)


def remove_tree(path: Path) -> None:
    """Removes a directory of the lab; refuses one that something is mounted in."""
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    inside = [m for m in mounted if path in (Path(m), *Path(m).parents)]
    if inside:
        raise LabError(f"{path} is not removed: {inside[0]} is mounted in it", "findmnt")
    if path.exists():
        shutil.rmtree(path)
