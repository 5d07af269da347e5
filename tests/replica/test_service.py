# SPDX-License-Identifier: Apache-2.0
"""ha-replicator.service on a private bus, with a manager that keeps its descriptors."""

from __future__ import annotations

import array
import asyncio
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dbus_next import BusType, DBusError, Message, MessageType, Variant
from dbus_next.aio import MessageBus

from haoperator.replica import inflight
from tests.replica.fusectl import nobody_waits, waiting
from tests.replica.pair import ROOT, Node, Pair, wait_for
from tests.replica.spawner import Spawner
from tests.replica.trees import assert_equal_trees

NAME = "org.haoperator1.Replicator"
OBJECT = "/org/haoperator1/replicator"
PROPERTIES = "org.freedesktop.DBus.Properties"
MOST_KILOBYTES = 40_000


class Manager:
    """As much of systemd as the replicator talks to: a notify socket and a descriptor store."""

    def __init__(self, path: Path) -> None:
        self.address = str(path)
        self.messages: list[str] = []
        self.store: dict[str, int] = {}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.address)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            rights = array.array("i")
            message, ancillary, _, _ = self._socket.recvmsg(8192, socket.CMSG_SPACE(16))
            for _, _, data in ancillary:
                rights.frombytes(data)
            text = message.decode()
            self.messages.append(text)
            fields = dict(line.partition("=")[::2] for line in text.splitlines())
            if "FDSTOREREMOVE" in fields and fields["FDNAME"] in self.store:
                os.close(self.store.pop(fields["FDNAME"]))
            if "FDSTORE" in fields:
                self.store[fields["FDNAME"]] = rights[0]

    def close(self) -> None:
        for descriptor in self.store.values():
            os.close(descriptor)
        self.store.clear()


class ServiceNode(Node):
    """A node whose process is the real program; its commands go over a bus of its own."""

    def __init__(self, base: Path, settings: dict[str, Any], spawner: Spawner) -> None:
        super().__init__(base, settings, spawner)
        self.bus_address = f"unix:path={base / self.name / 'bus'}"
        self.daemon = self._start_bus()
        self.manager = Manager(base / self.name / "notify")

    def _start_bus(self) -> subprocess.Popen[bytes]:
        daemon = subprocess.Popen(
            ["dbus-daemon", "--session", "--nofork", "--print-address=1"]
            + [f"--address={self.bus_address}"],
            stdout=subprocess.PIPE,
        )
        assert daemon.stdout is not None
        daemon.stdout.readline()
        return daemon

    def restart_bus(self) -> None:
        self._stop_bus()
        self.daemon = self._start_bus()

    def _stop_bus(self) -> None:
        self.daemon.kill()
        self.daemon.wait()
        assert self.daemon.stdout is not None
        self.daemon.stdout.close()

    def start(self, *, restored: bool = False) -> None:
        config = self.base / f"{self.name}.json"
        config.write_text(json.dumps(self.settings), encoding="utf-8")
        environment = {
            "PYTHONPATH": str(ROOT),
            "DBUS_SYSTEM_BUS_ADDRESS": self.bus_address,
            "NOTIFY_SOCKET": self.manager.address,
        }
        fds: tuple[int, ...] = ()
        if restored:
            names = sorted(self.manager.store)
            environment |= {"LISTEN_FDS": str(len(names)), "LISTEN_FDNAMES": ":".join(names)}
            fds = tuple(self.manager.store[name] for name in names)
        self.manager.messages.clear()
        command = [sys.executable, "-m", "tests.replica.service_process", str(config)]
        self.process = self.spawner.spawn(command, environment, self.log, fds)
        wait_for(lambda: any("READY=1" in m for m in self.manager.messages), "ready")
        wait_for(self._on_the_bus, "its name is on the bus")

    def _on_the_bus(self) -> bool:
        try:
            return bool(self.properties())
        except DBusError:
            return False

    def bus_call(self, interface: str, member: str, signature: str = "", *body: Any) -> Any:
        async def work() -> Any:
            os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = self.bus_address
            bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
            try:
                message = Message(
                    destination=NAME,
                    path=OBJECT,
                    interface=interface,
                    member=member,
                    signature=signature,
                    body=list(body),
                )
                reply = await bus.call(message)
            finally:
                bus.disconnect()
                bus._sock.close()
            assert reply is not None
            if reply.message_type is MessageType.ERROR:
                raise DBusError._from_message(reply)
            return reply.body[0] if reply.body else None

        return asyncio.run(work())

    def properties(self) -> dict[str, Any]:
        values = self.bus_call(PROPERTIES, "GetAll", "s", NAME)
        return {name: variant.value for name, variant in values.items()}

    @property
    def state(self) -> dict[str, Any]:
        values = self.properties()
        return {
            "role": values["Role"],
            "stream": values["Stream"],
            "record": json.loads(values["Record"]),
            "directories": json.loads(values["Directories"]),
            "heard": values["Heard"] / 1e6,
        }

    def soon(self) -> int:
        return int((time.monotonic() + 5) * 1e6)

    def become_primary(self, generation: str, *, force: bool = False) -> None:
        self.bus_call(NAME, "BecomePrimary", "sbt", generation, force, self.soon())

    def begin(self) -> str:
        generation = secrets.token_hex(8)
        self.become_primary(generation)
        return generation

    def stop(self) -> None:
        super().stop()
        self.manager.close()
        self._stop_bus()


@pytest.fixture
def services(tmp_path: Path, spawner: Spawner) -> Iterator[Pair]:
    two = Pair(tmp_path, spawner, make_node=ServiceNode)
    try:
        yield two
    finally:
        two.stop()


def test_the_two_programs_replicate_and_hand_over(services: Pair) -> None:
    a, b = services.a, services.b
    assert isinstance(a, ServiceNode)
    assert isinstance(b, ServiceNode)
    services.replicate()
    (a.path / "file").write_text("over the bus")
    assert (b.path / "file").read_text() == "over the bus"
    assert a.state["directories"][0]["mounted"]
    a.bus_call(NAME, "BecomeSecondary")
    assert a.properties()["Role"] == "secondary"  # what was answered is visible
    assert b.properties()["Stream"] == "handed-over"
    b.become_primary("")
    b.wait_stream("synced")
    (b.path / "back").touch()
    assert_equal_trees(a.backing, b.backing)
    for node in (a, b):
        assert node.process is not None
        status = Path(f"/proc/{node.process.pid}/status").read_text()
        match = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert match is not None
        assert int(match[1]) < MOST_KILOBYTES


def test_refusals_are_errors_with_their_reason(services: Pair) -> None:
    a = services.a
    assert isinstance(a, ServiceNode)
    a.boot()
    late = int((time.monotonic() - 1) * 1e6)
    with pytest.raises(DBusError, match="expired"):
        a.bus_call(NAME, "BecomePrimary", "sbt", "a" * 16, False, late)
    with pytest.raises(DBusError, match="not primary"):
        a.bus_call(NAME, "ContinueAlone", "st", "a" * 16, a.soon())
    with pytest.raises(DBusError, match="no generation to keep"):
        a.become_primary("")
    assert a.state["role"] == "secondary"


def test_descriptors_outlive_the_process(services: Pair) -> None:
    a = services.a
    assert isinstance(a, ServiceNode)
    services.replicate()
    stored = {"data.fuse", "data.root", inflight.NAME}
    wait_for(lambda: set(a.manager.store) == stored, "they are stored")
    with open(a.path / "file", "w") as file:
        file.write("before")
        file.flush()
        a.kill()
        a.start(restored=True)
        assert a.state["role"] == "held"
        late = threading.Thread(target=(a.path / "late").touch)
        late.start()
        wait_for(lambda: waiting(a), "it is held")
        a.kill()
        a.start(restored=True)
        a.become_primary("")
        late.join()
        file.write(", after")
    a.wait_stream("synced")
    assert (a.path / "late").exists()
    nobody_waits(a)
    assert (a.path / "file").read_text() == "before, after"
    assert_equal_trees(a.backing, services.b.backing)
    a.bus_call(NAME, "BecomeSecondary")
    subprocess.run(["umount", str(a.path)], check=True)
    wait_for(lambda: set(a.manager.store) == {inflight.NAME}, "they are given back")


def test_a_restarted_bus_is_no_harm(services: Pair) -> None:
    a, b = services.a, services.b
    assert isinstance(a, ServiceNode)
    services.replicate()
    a.restart_bus()
    (a.path / "meanwhile").touch()
    wait_for(a._on_the_bus, "it is back")
    assert a.state["stream"] == "synced"
    assert_equal_trees(a.backing, b.backing)


def test_changes_are_announced_at_once(services: Pair) -> None:
    a, b = services.a, services.b
    assert isinstance(a, ServiceNode)
    services.replicate()

    async def held_is_announced() -> float:
        os.environ["DBUS_SYSTEM_BUS_ADDRESS"] = a.bus_address
        bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
        told: asyncio.Future[float] = asyncio.get_running_loop().create_future()

        def heard(message: Message) -> None:
            if message.member != "PropertiesChanged" or told.done():
                return
            changed: dict[str, Variant] = message.body[1]
            if "Stream" in changed and changed["Stream"].value == "held":
                told.set_result(time.monotonic())

        bus.add_message_handler(heard)
        rule = Message(
            destination="org.freedesktop.DBus",
            path="/org/freedesktop/DBus",
            interface="org.freedesktop.DBus",
            member="AddMatch",
            signature="s",
            body=[f"type='signal',interface='{PROPERTIES}',path='{OBJECT}'"],
        )
        await bus.call(rule)
        started = time.monotonic()
        assert b.process is not None
        b.process.kill()
        try:
            return await asyncio.wait_for(told, 10) - started
        finally:
            bus.disconnect()
            bus._sock.close()

    assert asyncio.run(held_is_announced()) < 0.5


def test_the_interface_is_the_one_in_the_contract(services: Pair) -> None:
    a = services.a
    assert isinstance(a, ServiceNode)
    a.boot()
    xml = a.bus_call("org.freedesktop.DBus.Introspectable", "Introspect")
    ours = xml[xml.index(f'name="{NAME}"') :]
    contract = (ROOT / "docs" / "architecture.md").read_text()
    section = contract[contract.index("### `org.haoperator1.Replicator`") :]
    section = section[: section.index("\n### ", 10)]
    methods = re.findall(r"^\| `(\w+)\(([^)]*)\)`", section, re.MULTILINE)
    properties = re.findall(r"^\| property `(\w+)` \((\w+)\)", section, re.MULTILINE)
    assert methods
    assert properties
    for name, arguments in methods:
        block = re.search(
            rf'<method name="{name}"\s*/?>(.*?)(</method>|<method|$)', ours, re.DOTALL
        )
        assert block is not None, name
        types = re.findall(r'<arg [^>]*type="(\w+)"', block[1]) if arguments else []
        assert types == [each.split()[0] for each in arguments.split(", ") if each], name
    for name, signature in properties:
        assert re.search(rf'<property [^>]*name="{name}"[^>]*type="{signature}"', ours), name


def test_watchdog_is_petted_and_the_status_line_tells_the_state(services: Pair) -> None:
    a = services.a
    assert isinstance(a, ServiceNode)
    a.boot()
    a.begin()
    wait_for(lambda: any("WATCHDOG=1" in m for m in a.manager.messages), "a sign of life")
    wait_for(lambda: any("STATUS=primary, stream alone" in m for m in a.manager.messages), "status")
