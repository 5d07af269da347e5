# SPDX-License-Identifier: Apache-2.0
"""No false silence while every core and the disk are saturated: `make saturate SECONDS=3600`.

Both nodes are on this one machine, at the fast timing. The gaps between beats are taken from
the time at which the kernel received them, so that who measures may be late.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.heartbeat_network import LINKS, Host, two_hosts
from tests.unit.heartbeat_nodes import Segment, running

DETECT, BEAT = 0.3, 0.05
SECONDS = float(os.environ.get("HAOPERATOR_SATURATE_SECONDS", "8"))
REAL_TIME = ("chrt", "--rr", "20")

SPIN = "while True: pass"
WRITE = """
import os, sys
file = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY, 0o600)
while True:
    for number in range(16):
        os.pwrite(file, os.urandom(1 << 20), number << 20)
        os.fsync(file)
"""

MEASURE = """
import json, select, socket, struct, sys
SO_TIMESTAMPNS, SO_RCVBUFFORCE = 35, 33
times = {}
for name in ("link0", "link1"):
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
    sock.bind((name, 3))
    times[sock] = []
print("ready", flush=True)
while sys.stdin not in (ready := select.select([sys.stdin, *times], [], [])[0]):
    for sock in ready:
        _, extra, _, address = sock.recvmsg(1, 64)
        if address[2] == socket.PACKET_HOST:
            seconds, nanoseconds = struct.unpack("qq", extra[0][2])
            times[sock].append(seconds + nanoseconds / 1e9)
print(json.dumps({
    sock.getsockname()[0]: sorted(b - a for a, b in zip(every, every[1:]))
    for sock, every in times.items()
}))
"""


@contextlib.contextmanager
def saturated(where: Path) -> Iterator[None]:
    """Two spinning processes a core, and four that write and fsync."""
    cores = os.cpu_count() or 1
    commands = [["-c", SPIN]] * (2 * cores)
    commands += [["-c", WRITE, str(where / f"written-{number}")] for number in range(4)]
    load = [subprocess.Popen([sys.executable, *command]) for command in commands]
    try:
        yield
        assert all(process.poll() is None for process in load), "the load ended early"
    finally:
        for process in load:
            process.kill()
            process.wait()


@contextlib.contextmanager
def measured(host: Host) -> Iterator[dict[str, list[float]]]:
    """Filled at the end: the gaps between packets that arrived, for each link, ascending."""
    gaps: dict[str, list[float]] = {}
    with subprocess.Popen(
        [*host.enter, sys.executable, "-c", MEASURE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield gaps
        process.stdin.close()
        gaps.update(json.loads(process.stdout.read()))


def major_faults(pid: int) -> int:
    """Page faults that waited for a disk (proc(5), field 12)."""
    text = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2]
    return int(text.split()[9])


def test_saturated_cores_and_disk_make_nobody_look_silent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def story() -> None:
        segment = Segment(7410, [(a, b) for _, a, b in LINKS])
        with two_hosts() as hosts:
            prefix_a, prefix_b = ((*host.enter, *REAL_TIME) for host in hosts)
            async with (
                running(
                    "node-a", segment, tmp_path, detect=DETECT, beat=BEAT, prefix=prefix_a
                ) as a,
                running(
                    "node-b", segment, tmp_path, detect=DETECT, beat=BEAT, prefix=prefix_b
                ) as b,
            ):
                for node in (a, b):
                    await node.until("get_links", {"link0": True, "link1": True})
                    node.silent.clear()  # the other may have taken its time to start
                faults = [major_faults(node.process.pid) for node in (a, b)]
                with measured(hosts[1]) as gaps, saturated(tmp_path):
                    await asyncio.sleep(SECONDS)
                for node in (a, b):
                    await node.interface.get_witness()  # what it said before is here now
                    assert not node.silent
                assert [major_faults(node.process.pid) for node in (a, b)] == faults
            _tell(gaps, capsys)

    asyncio.run(story())


def _tell(gaps: dict[str, list[float]], capsys: pytest.CaptureFixture[str]) -> None:
    for link, every in gaps.items():
        assert len(every) > 0.5 * SECONDS / BEAT, f"{link}: {len(every)} beats arrived"
        middle, worst = every[len(every) // 2], every[-1]
        with capsys.disabled():
            print(
                f"\n{link}: {len(every)} beats of {BEAT * 1000:.0f} ms in {SECONDS:.0f} s, "
                f"gap median {middle * 1000:.1f} ms, worst {worst * 1000:.1f} ms",
                end="",
            )
        assert worst < DETECT, f"{link}: {worst}"
