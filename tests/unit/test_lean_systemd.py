# SPDX-License-Identifier: Apache-2.0
"""An ear on the bus: changes of one unit make a sound, also behind a restart of dbus-daemon."""

from __future__ import annotations

import asyncio
import contextlib
import select
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from dbus_next import Message, MessageType, Variant
from dbus_next.aio import MessageBus

from haoperator.lean import systemd
from haoperator.systemd import names

CONFIG = """<busconfig>
  <type>session</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""
UNIT = names.bus_path("ha-promote.service")
OTHER = names.bus_path("ha-app@web.service")


class Manager:
    """As much of systemd as an ear needs: it is subscribed to, and says what changes."""

    def __init__(self, bus: MessageBus) -> None:
        self.bus = bus
        self.subscribed = 0
        bus.add_message_handler(self._answer)

    def _answer(self, message: Message) -> Message | None:
        if message.message_type is not MessageType.METHOD_CALL:
            return None
        self.subscribed += message.member == "Subscribe"
        return Message.new_method_return(message)

    async def change(self, path: str) -> None:
        body = ["org.freedesktop.systemd1.Unit", {"ActiveState": Variant("s", "active")}, []]
        properties = "org.freedesktop.DBus.Properties"
        signal = Message.new_signal(path, properties, "PropertiesChanged", "sa{sv}as", body)
        await self.bus.send(signal)


@contextlib.asynccontextmanager
async def manager(folder: Path) -> AsyncIterator[Manager]:
    config, socket = folder / "bus.conf", folder / "bus"
    config.write_text(CONFIG.format(socket=socket))
    socket.unlink(missing_ok=True)
    command = ["dbus-daemon", f"--config-file={config}", "--nofork", "--print-address"]
    daemon = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert daemon.stdout is not None
    await daemon.stdout.readline()
    bus = await MessageBus(bus_address=f"unix:path={socket}").connect()
    await bus.request_name("org.freedesktop.systemd1")
    try:
        yield Manager(bus)
    finally:
        bus.disconnect()
        await bus.wait_for_disconnect()
        bus._stream.close()  # dbus-next leaves both to the collector
        bus._sock.close()
        daemon.kill()
        await daemon.wait()


async def hears(ear: systemd.Ear) -> bool:
    """Polled as its owner polls it."""

    def poll() -> bool:
        waiting = select.poll()
        for descriptor in ear.descriptors:
            waiting.register(descriptor, select.POLLIN)
        patience = ear.patience
        waiting.poll(1000 * (0.3 if patience is None else patience))
        return ear.heard()

    return await asyncio.to_thread(poll)


async def _listen(folder: Path) -> None:
    ear = systemd.Ear(UNIT)
    assert not ear.heard(), "there is no bus yet"
    async with manager(folder) as first:
        assert await hears(ear), "it connects, and may have missed something"
        assert first.subscribed == 1
        await hears(ear)  # what the bus says of itself
        assert not await hears(ear)
        await first.change(OTHER)
        assert not await hears(ear)
        for _ in range(3):
            await first.change(UNIT)
            assert await hears(ear)
    assert await hears(ear), "it lost the bus"
    async with manager(folder) as second:
        deadline = time.monotonic() + 10
        while not second.subscribed and time.monotonic() < deadline:
            await hears(ear)
        await hears(ear)
        await second.change(UNIT)
        assert await hears(ear)
    ear.close()


def test_ear_hears_one_unit_across_a_restart_of_the_bus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "_BUS", str(tmp_path / "bus"))
    asyncio.run(_listen(tmp_path))


def test_long_messages_and_nonsense_are_no_harm() -> None:
    call = systemd.method_call(7, "a.b", "/a", "a.b", "C", ("x", "yz"))
    assert systemd.message_size(call[:15]) == 0
    assert systemd.message_size(call) == len(call)
    with pytest.raises(OSError):
        systemd.message_size(b"HTTP/1.1 200 OK\r\n")
    with pytest.raises(OSError):
        systemd.message_size(b"l\4\0\1" + b"\xff" * 12)
