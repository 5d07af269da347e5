# SPDX-License-Identifier: Apache-2.0
"""Two replicator processes with a mount each, and everything needed to torment them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import signal
import socket
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from haoperator.replica import inflight
from haoperator.replica._hotpath import umount2
from haoperator.replica.mount import hand_over, mount_over
from haoperator.replica.places import FILE_SYSTEM, mounted_type
from tests.replica import sanitizers
from tests.replica.sanitizers import Sanitizer
from tests.replica.spawner import Process, Spawner

MODULE = "tests.replica.node_process"
KEY = "5a" * 32
DEADLINE_SECONDS = 20.0
ROOT = Path(__file__).resolve().parents[2]
_ports = itertools.count(20_000 + os.getpid() % 10_000)


def wait_for(condition: Callable[[], Any], what: str, seconds: float = DEADLINE_SECONDS) -> Any:
    """Poll until `condition` is true and return it; a missed deadline fails the test."""
    until = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < until, f"not within {seconds} s: {what}"
        time.sleep(0.005)
    return value


_nodes: weakref.WeakSet[Node] = weakref.WeakSet()


def abort_all() -> None:
    """Kill every replicator and end every mount, whoever waits in them."""
    for node in list(_nodes):
        if node.process is not None:
            node.process.kill()
        node.abort_mount()


class Node:
    """One node: its process, its mount, and the descriptors that systemd would keep."""

    def __init__(self, base: Path, settings: dict[str, Any], spawner: Spawner) -> None:
        self.base = base
        self.spawner = spawner
        self.settings = settings
        self.paths = {name: Path(path) for name, path in settings["directories"]}
        self.process: Process | None = None
        self.sanitizer: Sanitizer | None = None
        self.prefix: list[str] = []
        """The command that runs the replicator elsewhere, in a network namespace say."""
        self.fds: dict[str, tuple[int, int]] = {}
        """Of each mounted directory: /dev/fuse, and the directory below."""
        self.table = -1
        """The table of requests in flight."""
        self.table_name = inflight.NAME
        self._control: socket.socket | None = None
        self._lines: Any = None
        self.log = base / f"{settings['node']}.log"
        _nodes.add(self)

    @property
    def name(self) -> str:
        return str(self.settings["node"])

    @property
    def path(self) -> Path:
        """Where the first of the directories is mounted."""
        return next(iter(self.paths.values()))

    @property
    def backing(self) -> Path:
        """The directory below the first mount, as this process sees it."""
        return self.backing_of(next(iter(self.paths)))

    def backing_of(self, name: str) -> Path:
        return Path(f"/proc/self/fd/{self.fds[name][1]}")

    def start(self, *, restored: bool = False) -> None:
        self.spawn(restored=restored)
        self._connect()

    def spawn(self, *, restored: bool) -> None:
        """Start, and do not wait until it answers."""
        config = self.base / f"{self.name}.json"
        config.write_text(json.dumps(self.settings), encoding="utf-8")
        command = [*self.prefix, *self._command(str(config))]
        names, fds = [self.table_name], [self.table]
        if restored:  # as systemd passes what it kept
            names += [f"{name}.{kind}" for name in self.fds for kind in ("fuse", "root")]
            fds += [fd for pair in self.fds.values() for fd in pair]
        else:  # it would be made by the replicator, and empty like this one
            self.close_table()
            self.table = fds[0] = os.memfd_create(inflight.NAME)
        environment = {
            "PYTHONPATH": str(ROOT),
            "LISTEN_FDS": str(len(names)),
            "LISTEN_FDNAMES": ":".join(names),
        }
        self.process = self.spawner.spawn(command, environment, self.log, tuple(fds))

    def _command(self, config: str) -> list[str]:
        if self.sanitizer is not None:
            extension = sanitizers.build(self.sanitizer)
            return sanitizers.command(self.sanitizer, extension, MODULE, config)
        return [sys.executable, "-m", MODULE, config]

    def _connect(self) -> None:
        address = Path(self.settings["run_directory"]) / "control.sock"

        def connected() -> bool:
            assert self.process is not None
            assert self.process.alive, self.log_text()
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.settimeout(60)
            try:
                sock.connect(str(address))
                self._lines = sock.makefile("rw", encoding="utf-8")
                self.call("state")
            except OSError:
                sock.close()
                return False
            self._control = sock
            return True

        wait_for(connected, f"{self.name} answers")

    def mount(self) -> None:
        address = Path(self.settings["run_directory"]) / "replicator.sock"
        for name, path in self.paths.items():
            self.fds[name] = mount_over(name, str(path))
            hand_over(address, name, str(path), *self.fds[name])

    def call(self, call: str, **arguments: Any) -> Any:
        self._lines.write(json.dumps({"call": call, **arguments}) + "\n")
        self._lines.flush()
        line = self._lines.readline()
        if not line:
            raise OSError("the node is gone")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.call("state")
        return state

    @property
    def stream(self) -> str:
        return str(self.state["stream"])

    @property
    def record(self) -> dict[str, Any]:
        record: dict[str, Any] = self.state["record"]
        return record

    def wait_stream(self, *wanted: str, seconds: float = DEADLINE_SECONDS) -> None:
        try:
            wait_for(lambda: self.stream in wanted, f"{self.name}: stream {wanted}", seconds)
        except AssertionError as err:
            raise AssertionError(f"{err}; {self.state}\n{self.log_text()}") from None

    def begin(self) -> str:
        """Become primary with a fresh generation."""
        generation = secrets.token_hex(8)
        self.call("become_primary", generation=generation)
        # A FLUSH that was answered once with ENOSYS is not sent again: from now on a fork
        # of the test does not wait for a replicator when it closes files of the mount.
        for path in self.paths.values():
            (path / ".flush").touch()
            (path / ".flush").unlink()
        return generation

    def kill(self) -> None:
        """SIGKILL for the replicator alone: its mount stays, held by us."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._disconnect()

    def power_cut(self) -> None:
        """The replicator and its mount are gone at once; the files stay."""
        self.kill()
        self.abort_mount()

    def abort_mount(self) -> None:
        self.close_fds()
        for path in self.paths.values():
            while mounted_type(str(path)) == FILE_SYSTEM:
                umount2(os.fsencode(path), 2)

    def close_fds(self) -> None:
        for pair in self.fds.values():
            for fd in pair:
                os.close(fd)
        self.fds.clear()

    def close_table(self) -> None:
        if self.table >= 0:
            os.close(self.table)
        self.table = -1

    def boot(self) -> None:
        self.start()
        self.mount()

    def stop(self) -> None:
        """Clean up, whatever happened."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self._disconnect()
        self.abort_mount()
        self.close_table()

    def _disconnect(self) -> None:
        if self._lines is not None:
            with contextlib.suppress(OSError):
                self._lines.close()
        if self._control is not None:
            self._control.close()
        self._control = self._lines = None

    def sanitizer_report(self) -> str:
        return sanitizers.reports(self.log_text()) if self.log.exists() else ""

    def log_text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


class Pair:
    """Nodes a and b of one cluster on loopback addresses."""

    def __init__(
        self,
        base: Path,
        spawner: Spawner,
        *,
        detect_seconds: float = 1.0,
        directories: tuple[str, ...] = ("data",),
        durability: str = "write",
        make_node: type[Node] | None = None,
        sanitizer: Sanitizer | None = None,
    ) -> None:
        port = next(_ports)
        self.port = port
        make = make_node or Node
        a = self._settings(base, "a", "b", 1, 2)
        b = self._settings(base, "b", "a", 2, 1)
        for settings in (a, b):
            paths = [(name, base / settings["node"] / name) for name in directories]
            for _, path in paths:
                path.mkdir(exist_ok=True)
            settings["directories"] = [(name, str(path)) for name, path in paths]
            settings["durability"] = durability
            settings["detect_seconds"] = detect_seconds
            settings["port"] = port
            settings["checkpoint_seconds"] = 3600  # tests that need one ask for it
        self.a, self.b = make(base, a, spawner), make(base, b, spawner)
        self.a.sanitizer = self.b.sanitizer = sanitizer or sanitizers.chosen()

    @staticmethod
    def _settings(base: Path, node: str, peer: str, own: int, other: int) -> dict[str, Any]:
        (base / node / "run").mkdir(parents=True, exist_ok=True)
        return {
            "cluster": "test",
            "node": node,
            "peer": peer,
            "key": KEY,
            "links": [["lo", f"127.0.77.{own}", f"127.0.77.{other}"]],
            "record_path": str(base / node / "record.json"),
            "run_directory": str(base / node / "run"),
        }

    def start(self) -> None:
        self.a.boot()
        self.b.boot()

    def replicate(self) -> None:
        """a primary, b standby, everything on both."""
        self.start()
        self.a.begin()
        self.a.wait_stream("synced")
        self.b.wait_stream("synced")

    def stop(self) -> None:
        self.a.stop()
        self.b.stop()
        for node in (self.a, self.b):
            assert not (report := node.sanitizer_report()), report
