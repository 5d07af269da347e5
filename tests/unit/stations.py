# SPDX-License-Identifier: Apache-2.0
"""Machines that are no more than a network stack, on real cables: veth pairs and a bridge."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass
class Station:
    """A network namespace that lives as long as `pid`."""

    pid: int

    def command(self, *argv: str) -> list[str]:
        """What runs `argv` in it."""
        return ["nsenter", "-t", str(self.pid), "-n", "--", *argv]

    def run(self, *argv: str) -> str:
        return subprocess.run(
            self.command(*argv), check=True, capture_output=True, text=True
        ).stdout

    def ip(self, *commands: str) -> None:
        """Each is the words after `ip`."""
        for words in commands:
            self.run("ip", *words.split())

    @contextlib.contextmanager
    def python(self, text: str, *argv: str) -> Iterator[subprocess.Popen[str]]:
        """A program that talks by its standard input and output; ended at the end."""
        process = subprocess.Popen(
            self.command(sys.executable, "-u", "-c", text, *argv),
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            try:
                yield process
            finally:
                process.kill()


@contextlib.contextmanager
def station() -> Iterator[Station]:
    """With nothing but loopback. Needs root, and says so."""
    if os.geteuid() != 0:
        pytest.fail("this test makes namespaces: run it as root")
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "ip link set lo up; echo ready; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        yield Station(holder.pid)


@contextlib.contextmanager
def segment(count: int) -> Iterator[list[Station]]:
    """The switch, and `count` stations with an eth0 on it; the other end is port0 and so on."""
    with contextlib.ExitStack() as stack:
        switch, *others = (stack.enter_context(station()) for _ in range(count + 1))
        switch.ip("link add lan type bridge mcast_snooping 0", "link set lan up")
        for number, other in enumerate(others):
            switch.ip(
                f"link add port{number} type veth peer name eth0 netns {other.pid}",
                f"link set port{number} master lan up",
            )
            other.ip("link set eth0 up")
        yield [switch, *others]


def line(process: subprocess.Popen[str], patience: float = 15.0) -> str:
    """The next line that it prints. Reads no further, so that waiting for one works."""
    assert process.stdout is not None
    descriptor, text = process.stdout.fileno(), b""
    while not text.endswith(b"\n"):
        assert select.select([descriptor], [], [], patience)[0], f"nothing but {text!r} was said"
        byte = os.read(descriptor, 1)
        assert byte, f"it ended after {text!r}"
        text += byte
    return text.decode().strip()


def mac(machine: Station, device: str = "eth0") -> str:
    # /sys shows the network of whoever mounted it.
    return machine.run("ip", "-o", "link", "show", device).split("link/ether ")[1].split()[0]
