# SPDX-License-Identifier: Apache-2.0
"""Two network namespaces with links between them that lose, double and delay packets."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

LINKS = ((4, "10.77.0.1", "10.77.0.2"), (6, "fd77::1", "fd77::2"))
"""Version, and the addresses of node-a and node-b: link0 and link1."""

LOSS = """
table inet trouble {{
  chain arrives {{
    type filter hook input priority 0;
    meta l4proto udp {condition} drop
  }}
}}
"""

DOUBLE = """
import heapq, random, select, socket, time
links = [socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) for _ in range(2)]
for number, link in enumerate(links):
    link.bind((f"link{number}", 3))
mine, late = set(), []
print("ready", flush=True)
while True:
    wait = max(0, late[0][0] - time.monotonic()) if late else None
    for link in select.select(links, [], [], wait)[0]:
        frame, address = link.recvfrom(2000)
        if address[2] == socket.PACKET_OUTGOING and frame not in mine:
            mine.add(frame)
            when = time.monotonic() + random.uniform(0, 0.15)
            heapq.heappush(late, (when, frame, links.index(link)))
    while late and late[0][0] <= time.monotonic():
        _, frame, number = heapq.heappop(late)
        links[number].send(frame)
"""
"""Sends every packet once more, up to three beats later: behind its successors."""


@dataclass
class Host:
    """A network namespace that lives as long as `pid`."""

    pid: int

    @property
    def enter(self) -> tuple[str, ...]:
        return ("nsenter", "-t", str(self.pid), "-n", "--")

    def run(self, *argv: str, text: str | None = None) -> None:
        subprocess.run([*self.enter, *argv], input=text, text=True, check=True)

    def lose(self, condition: str = "") -> None:
        """Drop the heartbeats that arrive, if this condition of nftables holds."""
        self.run("nft", "-f", "-", text=LOSS.format(condition=condition))

    @contextlib.contextmanager
    def doubling(self) -> Iterator[None]:
        """What leaves this host leaves it twice."""
        argv = [*self.enter, sys.executable, "-c", DOUBLE]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == b"ready\n"
                yield
                assert process.poll() is None, "it ended early"
            finally:
                process.kill()


@contextlib.contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Node-a and node-b, joined by one cable for each of LINKS. Needs root, and says so."""
    if os.geteuid() != 0:
        pytest.fail("this test makes network namespaces: run it as root")
    with contextlib.ExitStack() as stack:
        hosts = (_host(stack), _host(stack))
        for number, (_, *addresses) in enumerate(LINKS):
            name = f"link{number}"
            end = ("peer", "name", name, "netns", str(hosts[1].pid))
            hosts[0].run("ip", "link", "add", name, "type", "veth", *end)
            for host, address in zip(hosts, addresses, strict=True):
                wide = "64" if ":" in address else "24"
                nodad = ("nodad",) if ":" in address else ()
                host.run("ip", "address", "add", f"{address}/{wide}", "dev", name, *nodad)
                host.run("ip", "link", "set", name, "up")
        yield hosts


def _host(stack: contextlib.ExitStack) -> Host:
    holder = subprocess.Popen(
        ["unshare", "--net", "sh", "-c", "ip link set lo up && echo ready && exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    stack.enter_context(holder)  # closes its input, which ends it
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"ready\n"
    return Host(holder.pid)
