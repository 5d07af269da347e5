# SPDX-License-Identifier: Apache-2.0
"""The hand-written XML is what the live objects answer, on a real dbus-daemon."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from dbus_next.aio import MessageBus
from dbus_next.errors import DBusError
from dbus_next.introspection import Interface, Node

from haoperator.api.caller import note_sender, require
from haoperator.api.interface import (
    REFUSED,
    ROOT,
    ClusterInterface,
    GateInterface,
    PartInterface,
    Refused,
)
from haoperator.systemd.bus import call

XML = Path(__file__).parents[2] / "haoperator/api/org.haoperator1.xml"
BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={socket}</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow send_destination="*" eavesdrop="true"/>
<allow eavesdrop="true"/><allow own="*"/></policy></busconfig>
"""


class Told:
    """Verbs that note what they were told, and refuse to swap."""

    def __init__(self) -> None:
        self.promoted: list[bool] = []
        self.verified: list[bool] = []
        self.maintained: list[bool] = []

    async def swap(self) -> None:
        raise Refused("node-b is not an up-to-date standby")

    async def promote(self, force: bool) -> None:
        self.promoted.append(force)

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def set_maintenance(self, on_: bool) -> None:
        self.maintained.append(on_)

    async def verify(self, repair: bool) -> None:
        self.verified.append(repair)

    async def yield_branch(self) -> None:
        raise Refused("there is no split brain")

    async def open_gate(self) -> None:
        raise Refused("the data here is stale")


@pytest.fixture
def private_bus() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)  # another user is to reach the bus, too
        yield from running_bus(directory)


def running_bus(directory: Path) -> Iterator[str]:
    configuration = directory / "bus.conf"
    configuration.write_text(BUS.format(socket=directory / "bus"))
    daemon = subprocess.Popen(
        ["dbus-daemon", f"--config-file={configuration}", "--nofork", "--print-address=1"],
        stdout=subprocess.PIPE,
    )
    assert daemon.stdout is not None
    address = daemon.stdout.readline().decode().strip()
    yield address
    daemon.terminate()
    daemon.wait()
    daemon.stdout.close()


def described(interface: Interface) -> set[str]:
    """An interface as a set of lines that can be compared."""
    lines = {
        f"method {m.name}({','.join(str(a.signature) for a in m.in_args)})"
        f" -> ({','.join(str(a.signature) for a in m.out_args)})"
        for m in interface.methods
    }
    lines |= {f"property {p.name} {p.signature} {p.access.value}" for p in interface.properties}
    lines |= {
        f"signal {s.name}({','.join(str(a.signature) for a in s.args)})" for s in interface.signals
    }
    return lines


@asynccontextmanager
async def connection(address: str) -> AsyncIterator[MessageBus]:
    """A connection that leaves nothing open: dbus-next itself only shuts its socket down."""
    bus = await MessageBus(bus_address=address).connect()
    try:
        yield bus
    finally:
        bus.disconnect()
        await bus.wait_for_disconnect()
        bus._sock.close()


@asynccontextmanager
async def served(address: str, told: Told) -> AsyncIterator[None]:
    async with connection(address) as bus:
        await export(bus, told)
        yield


async def export(bus: MessageBus, told: Told) -> None:
    bus.add_message_handler(note_sender)

    async def allowed(verb: str) -> None:
        await require(bus, verb)

    bus.export(ROOT, ClusterInterface(told, allowed))
    bus.export(ROOT, GateInterface(told))
    part = PartInterface("vip", "front", "ha-vip@front.service")
    bus.export(part.path, part)
    await bus.request_name("org.haoperator1")


def test_live_objects_are_what_the_xml_says(private_bus: str) -> None:
    async def ask() -> dict[str, Interface]:
        live: dict[str, Interface] = {}
        async with served(private_bus, Told()), connection(private_bus) as client:
            for path in (ROOT, f"{ROOT}/vip/front"):
                node = await client.introspect("org.haoperator1", path)
                live |= {i.name: i for i in node.interfaces if i.name.startswith("org.haoperator1")}
        return live

    live = asyncio.run(ask())
    written = {i.name: i for i in Node.parse(XML.read_text()).interfaces}
    assert written.keys() == live.keys()
    for name, interface in written.items():
        assert described(interface) == described(live[name])


def test_refusal_reaches_the_caller_with_its_reason(private_bus: str) -> None:
    async def ask() -> DBusError:
        async with served(private_bus, Told()), connection(private_bus) as client:
            with pytest.raises(DBusError) as caught:
                await call(client, "org.haoperator1", ROOT, "org.haoperator1.Cluster.Swap")
        return caught.value

    error = asyncio.run(ask())
    assert (error.type, error.text) == (REFUSED, "node-b is not an up-to-date standby")


@pytest.mark.root
def test_root_may_promote_and_the_flag_arrives(private_bus: str) -> None:
    async def ask() -> list[bool]:
        told = Told()
        promote = "org.haoperator1.Cluster.Promote"
        async with served(private_bus, told), connection(private_bus) as client:
            await call(client, "org.haoperator1", ROOT, promote, "b", [True])
        return told.promoted

    assert asyncio.run(ask()) == [True]


@pytest.mark.root
def test_verify_compares_and_repair_repairs(private_bus: str) -> None:
    async def ask() -> list[bool]:
        told = Told()
        async with served(private_bus, told), connection(private_bus) as client:
            for method in ("Verify", "Repair"):
                await call(client, "org.haoperator1", ROOT, f"org.haoperator1.Cluster.{method}")
        return told.verified

    assert asyncio.run(ask()) == [False, True]


@pytest.mark.root
def test_maintenance_is_switched_on_and_off(private_bus: str) -> None:
    async def ask() -> list[bool]:
        told = Told()
        method = "org.haoperator1.Cluster.SetMaintenance"
        async with served(private_bus, told), connection(private_bus) as client:
            for on in (True, False):
                await call(client, "org.haoperator1", ROOT, method, "b", [on])
        return told.maintained

    assert asyncio.run(ask()) == [True, False]


@pytest.mark.root
def test_nobody_else_may_promote_without_polkit(private_bus: str) -> None:
    """There is no polkit on this bus, so that who is not root is refused."""

    async def ask() -> list[bool]:
        told = Told()
        async with served(private_bus, told):
            process = await asyncio.create_subprocess_exec(
                "busctl", f"--address={private_bus}", "call", "org.haoperator1", ROOT,
                "org.haoperator1.Cluster", "Promote", "b", "true",
                user="nobody", stderr=asyncio.subprocess.PIPE,
            )  # fmt: skip
            _, said = await process.communicate()
        assert process.returncode != 0
        assert b"Access denied" in said, said
        return told.promoted

    assert asyncio.run(ask()) == []
