# SPDX-License-Identifier: Apache-2.0
"""The bus policy, asked of a dbus-daemon that enforces it: who may call and own what."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from dbus_next import Message, MessageType, RequestNameReply
from dbus_next.aio import MessageBus

POLICY = Path(__file__).parents[2] / "packaging/dbus/org.haoperator1.conf"
NAMES = ("org.haoperator1", "org.haoperator1.Replicator", "org.haoperator1.Heartbeat")
ROOT, NOBODY = 0, 65534
PROPERTIES = "org.freedesktop.DBus.Properties"

# The rules that /usr/share/dbus-1/system.conf begins with, and ours after them.
BUS = """<busconfig>
  <type>system</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus" send_interface="org.freedesktop.DBus"/>
  </policy>
  <include>{policy}</include>
</busconfig>
"""

pytestmark = pytest.mark.root


@contextmanager
def bus_config() -> Iterator[Path]:
    """Configuration of a bus whose socket everybody reaches."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        config = folder / "bus.conf"
        config.write_text(BUS.format(socket=folder / "bus", policy=POLICY))
        yield config


def answer(message: Message) -> Message | None:
    called = message.message_type is MessageType.METHOD_CALL
    return Message.new_method_return(message) if called else None


@asynccontextmanager
async def bus_with_services() -> AsyncIterator[str]:
    """The address of a bus on which root owns our names and answers every call."""
    with bus_config() as config:
        daemon = await asyncio.create_subprocess_exec(
            "dbus-daemon",
            f"--config-file={config}",
            "--nofork",
            "--print-address",
            stdout=asyncio.subprocess.PIPE,
        )
        assert daemon.stdout is not None
        address = (await daemon.stdout.readline()).decode().strip()
        # One connection for each name: a rule for a name holds for all that its owner owns.
        services = [await MessageBus(bus_address=address).connect() for _ in NAMES]
        try:
            for service, name in zip(services, NAMES, strict=True):
                service.add_message_handler(answer)
                assert await service.request_name(name) is RequestNameReply.PRIMARY_OWNER
            yield address
        finally:
            for service in services:
                service.disconnect()
                await service.wait_for_disconnect()
                service._sock.close()  # dbus-next leaves it to the garbage collector
            daemon.terminate()
            await daemon.wait()


async def call(address: str, uid: int, destination: str, method: str) -> str:
    """What becomes of a method call by that user: `answered`, or the error's name."""
    caller = await asyncio.create_subprocess_exec(
        "dbus-send",
        f"--bus={address}",
        f"--dest={destination}",
        "--print-reply",
        "/org/haoperator1",
        method,
        user=uid,
        group=uid,
        extra_groups=[],
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, complaint = await caller.communicate()
    return "answered" if caller.returncode == 0 else complaint.decode().split(":")[0].split()[-1]


DENIED = "org.freedesktop.DBus.Error.AccessDenied"


@pytest.mark.parametrize(
    ("uid", "destination", "method", "outcome"),
    [
        (NOBODY, "org.haoperator1", "org.freedesktop.DBus.Introspectable.Introspect", "answered"),
        (NOBODY, "org.haoperator1", f"{PROPERTIES}.Get", "answered"),
        (NOBODY, "org.haoperator1", f"{PROPERTIES}.GetAll", "answered"),
        (NOBODY, "org.haoperator1", "org.haoperator1.Cluster.Swap", "answered"),
        (NOBODY, "org.haoperator1", f"{PROPERTIES}.Set", DENIED),
        (NOBODY, "org.haoperator1", "org.haoperator1.Gate.Open", DENIED),
        (NOBODY, "org.haoperator1.Replicator", f"{PROPERTIES}.GetAll", DENIED),
        (NOBODY, "org.haoperator1.Replicator", "org.haoperator1.Replicator.BecomePrimary", DENIED),
        (NOBODY, "org.haoperator1.Heartbeat", "org.haoperator1.Heartbeat.Publish", DENIED),
        (NOBODY, "org.haoperator1", "org.haoperator1.Replicator.MarkOutdated", DENIED),
        (ROOT, "org.haoperator1", "org.haoperator1.Gate.Open", "answered"),
        (ROOT, "org.haoperator1.Replicator", "org.haoperator1.Replicator.MarkOutdated", "answered"),
        (ROOT, "org.haoperator1.Heartbeat", "org.haoperator1.Heartbeat.Publish", "answered"),
    ],
)
def test_the_bus_lets_through_what_the_caller_may(
    uid: int, destination: str, method: str, outcome: str
) -> None:
    async def ask() -> str:
        async with bus_with_services() as address:
            return await call(address, uid, destination, method)

    assert asyncio.run(ask()) == outcome


@pytest.mark.parametrize("name", NAMES)
def test_nobody_but_root_may_own_a_name(name: str) -> None:
    async def claim() -> str:
        async with bus_with_services() as address:
            caller = await asyncio.create_subprocess_exec(
                "dbus-send",
                f"--bus={address}",
                "--dest=org.freedesktop.DBus",
                "--print-reply",
                "/",
                "org.freedesktop.DBus.RequestName",
                f"string:{name}",
                "uint32:0",
                user=NOBODY,
                group=NOBODY,
                extra_groups=[],
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
            return (await caller.communicate())[1].decode()

    assert DENIED in asyncio.run(claim())
