# SPDX-License-Identifier: Apache-2.0
"""Heartbeat processes on loopback, a private bus for each, and one who plays the peer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from haoperator.lean.imports import leave_out

leave_out("gi")  # warns when it is imported, and nobody here needs it

from dbus_next import Message  # noqa: E402
from dbus_next.aio import MessageBus  # noqa: E402
from dbus_next.errors import DBusError  # noqa: E402

from haoperator.heartbeat.packet import Codec, Packet, Rejected  # noqa: E402
from haoperator.heartbeat.session import Admission, Session  # noqa: E402

ROOT = Path(__file__).parents[2]
DETECT, BEAT = 0.6, 0.1
KEY = b"k" * 32
PATIENCE = 20.0

PROGRAM = """
from haoperator.lean.imports import leave_out_tls_and_glib
leave_out_tls_and_glib()
import asyncio, logging, sys
from pathlib import Path
from haoperator.heartbeat import __main__ as main, daemon
from haoperator.heartbeat.link import Link
from ipaddress import ip_interface
from tomlconfig.model import Cluster, Config, Link as LinkModel, Timing, Vip, Witness
node, port, detect, beat, *rest = sys.argv[1:]
pairs = [text for text in rest if "," in text]
vips = tuple(
    Vip(f"vip{i}", ip_interface(text.split("@")[0]), text.split("@")[1])
    for i, text in enumerate(text for text in rest if "@" in text)
)
links = tuple(
    LinkModel(f"link{i}", dict(zip(("node-a", "node-b"), pair.split(","))))
    for i, pair in enumerate(pairs)
)
config = Config(Path("/none"), "", Cluster("shop"), Timing(float(beat), float(detect)),
    ("node-a", "node-b"), links, vips, witness=Witness(("127.0.0.1",)))
original = daemon.Daemon
main.Daemon = lambda config, node, key: original(config, node, key, int(port))
logging.basicConfig(level=logging.INFO, format="%(message)s")
asyncio.run(main.serve(config, node, b"k" * 32))
"""

BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={socket}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/>
<allow eavesdrop="true"/><allow own="*"/></policy></busconfig>
"""


@dataclass
class Segment:
    """Addresses and a port of this test's own."""

    port: int
    pairs: list[tuple[str, str]]
    vips: list[str] = field(default_factory=list)
    """Each as `ADDRESS/PREFIX@INTERFACE`."""
    inside: list[str] = field(default_factory=list)
    """Words before a command that make it run elsewhere."""

    @property
    def arguments(self) -> list[str]:
        return [",".join(pair) for pair in self.pairs] + self.vips


def free_segment() -> Segment:
    """Two links on loopback that nobody else uses."""
    net = f"127.{os.getpid() // 250 % 250 + 2}.{os.getpid() % 250 + 2}"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind((f"{net}.1", 0))
        port = free.getsockname()[1]
    return Segment(port, [(f"{net}.1", f"{net}.2"), (f"{net}.3", f"{net}.4")])


@dataclass
class Bus:
    process: subprocess.Popen[bytes]
    address: str


def start_bus(where: Path) -> Bus:
    where.mkdir(exist_ok=True)
    path = where / "bus"
    path.unlink(missing_ok=True)
    config = where / "bus.conf"
    config.write_text(BUS.format(socket=path))
    process = subprocess.Popen(
        ["dbus-daemon", f"--config-file={config}", "--nofork", "--print-address"],
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    line = process.stdout.readline()  # printed when it listens
    assert line, "dbus-daemon did not start"
    process.stdout.close()
    return Bus(process, f"unix:path={path}")


def end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGCONT)
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass
class Node:
    """A heartbeat process and what its bus says of it."""

    name: str
    process: subprocess.Popen[bytes]
    bus: Bus
    connection: MessageBus | None = None
    interface: Any = None
    heard: list[tuple[float, str]] = field(default_factory=list)
    silent: list[float] = field(default_factory=list)

    async def connect(self) -> None:
        path = "/org/haoperator1/heartbeat"
        self.connection = bus = await MessageBus(self.bus.address).connect()
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                node = await bus.introspect("org.haoperator1.Heartbeat", path)
                break
            except DBusError as err:
                assert time.monotonic() < deadline, f"{self.name}: not on the bus: {err}"
                await asyncio.sleep(0.01)
        proxy = bus.get_proxy_object("org.haoperator1.Heartbeat", path, node)
        self.interface = proxy.get_interface("org.haoperator1.Heartbeat")
        self.interface.on_peer_heard(lambda text: self.heard.append((time.monotonic(), text)))
        self.interface.on_peer_silent(lambda: self.silent.append(time.monotonic()))
        await self.interface.get_witness()  # the match rules are in place now

    async def properties(self) -> Any:
        """`org.freedesktop.DBus.Properties` of the heartbeat."""
        assert self.connection is not None
        name, path = "org.haoperator1.Heartbeat", "/org/haoperator1/heartbeat"
        node = await self.connection.introspect(name, path)
        proxy = self.connection.get_proxy_object(name, path, node)
        return proxy.get_interface("org.freedesktop.DBus.Properties")

    async def disconnect(self) -> None:
        if self.connection is not None:
            self.connection.disconnect()
            with contextlib.suppress(Exception):  # however it ended, it did
                await self.connection.wait_for_disconnect()
            self.connection._stream.close()  # dbus-next leaves both to the collector
            self.connection._sock.close()

    async def introspect(self) -> str:
        assert self.connection is not None
        answer = await self.connection.call(
            Message(
                destination="org.haoperator1.Heartbeat",
                path="/org/haoperator1/heartbeat",
                interface="org.freedesktop.DBus.Introspectable",
                member="Introspect",
            )
        )
        assert answer is not None
        text: str = answer.body[0]
        return text

    async def until(self, get: str, wanted: object) -> float:
        deadline = time.monotonic() + PATIENCE
        while (value := await getattr(self.interface, get)()) != wanted:
            assert time.monotonic() < deadline, f"{self.name}: {get} is {value}, not {wanted}"
            await asyncio.sleep(0.005)
        return time.monotonic()


async def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def running(
    name: str,
    segment: Segment,
    where: Path,
    *,
    detect: float = DETECT,
    beat: float = BEAT,
    prefix: tuple[str, ...] = (),
) -> AsyncIterator[Node]:
    """A process that beats, under the command `prefix`."""
    bus = start_bus(where / name)
    arguments = [name, str(segment.port), str(detect), str(beat), *segment.arguments]
    process = subprocess.Popen(  # noqa: ASYNC220 - it returns at once
        [*segment.inside, *prefix, sys.executable, "-c", PROGRAM, *arguments],
        env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": bus.address, "PYTHONPATH": str(ROOT)},
    )
    node = Node(name, process, bus)
    try:
        await node.connect()
        yield node
    finally:
        await node.disconnect()
        end(process)
        end(node.bus.process)


class Impostor:
    """Plays node-b packet by packet; with the cluster's key or without."""

    def __init__(self, segment: Segment, key: bytes = KEY) -> None:
        self.codec = Codec("shop", key)
        self.life = os.urandom(8)
        self.session = Session("node-a", self.life)
        self.sequence = 0
        self.sent: list[tuple[int, bytes]] = []
        self.sockets = []
        for own, other in ((b, a) for a, b in segment.pairs):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind((own, segment.port))
            sock.connect((other, segment.port))
            sock.setblocking(False)
            self.sockets.append(sock)

    def say(self, status: str, links: tuple[int, ...] = (0, 1), echo: bytes | None = None) -> None:
        self.sequence += 1
        for link in links:
            echoed = self.session.peer_incarnation if echo is None else echo
            packet = Packet("node-b", self.life, echoed, self.sequence, link, status.encode())
            self.raw(link, self.codec.encode(packet))

    def raw(self, link: int, datagram: bytes) -> None:
        self.sent.append((link, datagram))
        with contextlib.suppress(ConnectionRefusedError):
            self.sockets[link].send(datagram)

    def hear(self) -> list[Packet]:
        packets = []
        for link, sock in enumerate(self.sockets):
            while True:
                try:
                    packet = self.codec.decode(sock.recv(2000))
                except ConnectionRefusedError:
                    continue
                except (BlockingIOError, Rejected):
                    break
                if self.session.admit(packet, link) in (Admission.NEWEST, Admission.COPY):
                    packets.append(packet)
        return packets

    async def introduce(self, node: Node, status: str = "hello") -> None:
        """The handshake; node-a counts us as heard afterwards."""

        async def met() -> bool:
            self.say(status)
            await asyncio.sleep(BEAT / 4)
            self.hear()
            return bool(await node.interface.get_peer_status() == status)

        deadline = time.monotonic() + PATIENCE
        while not await met():
            assert time.monotonic() < deadline, "never heard"

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()
