# SPDX-License-Identifier: Apache-2.0
"""A network, a /run and an /etc of their own, for programs that use the real paths."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit.fake_systemd import Manager, manager

ROOT = Path(__file__).parents[2]
PATIENCE = 10.0

PREPARE = """set -e
mount -t tmpfs tmpfs /run
mkdir /run/upper /run/work
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work /etc
mkdir -p /etc/haoperator
printf '%s' "$CONFIG" > /etc/haoperator/cluster.toml
ip link set lo up
echo ready
exec cat
"""

TWO_VIPS = """
[cluster]
name = "small"
[node.node-a]
[node.node-b]
[link.lan]
node-a = "10.0.0.1"
node-b = "10.0.0.2"
[vip.four]
address = "10.0.0.100/24"
interface = "v0"
[vip.six]
address = "fd00::64/64"
interface = "v0"
"""


@dataclass
class PrivateHost:
    """Namespaces that live as long as `pid`, and the systemd that its services tell."""

    pid: int
    manager: Manager

    def command(self, *argv: str) -> list[str]:
        """What runs `argv` in it."""
        return ["nsenter", "-t", str(self.pid), "-n", "-m", "--wd=/", "--", *argv]

    def program(self, module: str, *argv: str, **environment: str) -> subprocess.Popen[str]:
        """Start the `main` of a module, as its launcher does."""
        text = f"import sys; from {module} import main; sys.exit(main())"
        return subprocess.Popen(
            self.command(sys.executable, "-c", text, *argv),
            env={**self.manager.environment, "PYTHONPATH": str(ROOT), **environment},
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *argv: str) -> str:
        return subprocess.run(
            self.command(*argv), check=True, capture_output=True, text=True
        ).stdout


@contextlib.contextmanager
def private_host(where: Path, config: str) -> Iterator[PrivateHost]:
    """Needs root, and says so."""
    if os.geteuid() != 0:
        pytest.fail("this test makes namespaces: run it as root")
    holder = subprocess.Popen(
        ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", PREPARE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "CONFIG": config},
        text=True,
    )
    with holder, manager(where) as systemd:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        yield PrivateHost(holder.pid, systemd)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and what it said on standard error."""
    _, errors = process.communicate(timeout=PATIENCE)
    return process.returncode, errors


def until(condition: Callable[[], bool], what: str) -> float:
    """Look again and again; the time when it came true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)
    return time.monotonic()
