# SPDX-License-Identifier: Apache-2.0
"""Units of systemd for processes that import next to nothing.

Questions and orders go through systemctl, which needs no bus daemon. What is kept for
months is only an ear: a socket on the system bus on which a change of a unit makes a
sound. Nothing that is heard is understood; whoever listens asks again.
"""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import time

ASK_SECONDS = 5.0
RETRY_SECONDS = 1.0
"""While the bus is away."""

_BUS = "/run/dbus/system_bus_socket"
_CALL_SECONDS = 5.0
_CALL, _ERROR, _SIGNAL = 1, 3, 4
_MAX_BYTES = 1 << 27
"""Of a message (D-Bus specification)."""


def show(unit: str, *properties: str) -> list[str]:
    """The values of properties of a unit, [] if systemd does not answer."""
    asked = [f"--property={name}" for name in properties]
    try:
        done = subprocess.run(
            ["systemctl", "show", *asked, "--", unit],
            capture_output=True,
            timeout=ASK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    lines = (line.partition("=") for line in done.stdout.decode(errors="replace").splitlines())
    told = {name: value for name, _, value in lines}
    return [told.get(name, "") for name in properties] if done.returncode == 0 else []


def active_state(unit: str) -> str:
    """`active`, `inactive`, `failed`, `activating` …; "" if systemd does not answer."""
    told = show(unit, "ActiveState")
    return told[0] if told else ""


def order(*words: str, seconds: float) -> str:
    """`systemctl WORDS`, at most so long. What it complained about, "" if it did as it was told."""
    try:
        done = subprocess.run(
            ["systemctl", "--no-ask-password", *words],
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"systemctl {words[0]} took longer than {seconds:g} s"
    except OSError as err:
        return f"systemctl: {err.strerror}"
    if done.returncode == 0:
        return ""
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return said[0] if said else f"systemctl {words[0]} failed with exit code {done.returncode}"


class Ear:
    """Hears that something about a unit changed, across restarts of dbus-daemon.

    `path` is the unit's object on the bus. Poll `descriptors` for at most `patience`
    seconds, then call `heard`.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._pending = b""
        self._serial = 0
        self._next_try = 0.0

    @property
    def descriptors(self) -> list[int]:
        return [] if self._socket is None else [self._socket.fileno()]

    @property
    def patience(self) -> float | None:
        """After so long `heard` wants to be called; None: not before there is something."""
        if self._socket is not None:
            return None
        return max(0.0, self._next_try - time.monotonic())

    def heard(self) -> bool:
        """Whether something may have changed since the last call. Connects if it has to."""
        if self._socket is None:
            if time.monotonic() < self._next_try:
                return False
            try:
                self._connect()
            except OSError:
                self.close()
                return False
            return True  # what was said before it, was missed
        try:
            return self._drain()
        except OSError:
            self.close()
            self._next_try = time.monotonic()
            return True

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket, self._pending = None, b""
        self._next_try = time.monotonic() + RETRY_SECONDS

    def _connect(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(_CALL_SECONDS)
        self._socket.connect(_BUS)
        uid = str(os.getuid()).encode().hex()
        self._socket.sendall(f"\0AUTH EXTERNAL {uid}\r\n".encode())
        if not self._socket.recv(256).startswith(b"OK "):
            raise OSError("the system bus does not let us in")
        self._socket.sendall(b"BEGIN\r\n")
        bus = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
        self._call(*bus, "Hello")
        rule = "type='signal',interface='org.freedesktop.DBus.Properties'"
        self._call(*bus, "AddMatch", f"{rule},member='PropertiesChanged',path='{self._path}'")
        manager = "org.freedesktop.systemd1"
        self._call(manager, "/org/freedesktop/systemd1", f"{manager}.Manager", "Subscribe")

    def _call(self, destination: str, path: str, interface: str, member: str, *words: str) -> None:
        """Call a method with strings as arguments. Raises OSError if it fails."""
        assert self._socket is not None
        self._serial += 1
        self._socket.sendall(method_call(self._serial, destination, path, interface, member, words))
        while True:
            for kind in self._messages():
                if kind == _ERROR:
                    raise OSError(f"{member} failed")
                if kind != _SIGNAL:
                    return
            self._receive()

    def _drain(self) -> bool:
        assert self._socket is not None
        self._socket.settimeout(0)
        try:
            while True:
                self._receive()
        except BlockingIOError:
            return _SIGNAL in self._messages()
        finally:
            self._socket.settimeout(_CALL_SECONDS)

    def _receive(self) -> None:
        assert self._socket is not None
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("the system bus went away")
        self._pending += data

    def _messages(self) -> list[int]:
        """The types of the messages that arrived, which are taken out."""
        kinds = []
        while (size := message_size(self._pending)) and len(self._pending) >= size:
            kinds.append(self._pending[1])
            self._pending = self._pending[size:]
        return kinds


def message_size(data: bytes) -> int:
    """Of the message that `data` begins with, 0 if that is not known yet. Raises OSError."""
    if len(data) < 16:
        return 0
    order = {b"l": "<", b"B": ">"}.get(data[:1])
    if order is None:
        raise OSError("no message of D-Bus")
    body, _, fields = struct.unpack_from(f"{order}III", data, 4)
    size = 16 + -(-int(fields) // 8) * 8 + int(body)
    if size > _MAX_BYTES:
        raise OSError("a message of D-Bus that is too long")
    return size


def method_call(
    serial: int,
    destination: str,
    path: str,
    interface: str,
    member: str,
    words: tuple[str, ...] = (),
) -> bytes:
    """A message of D-Bus with strings as arguments (D-Bus specification, Message Protocol)."""
    body = b""
    for word in words:
        body = _aligned(body, 4) + _string(word)
    fields = b""
    named = ((1, "o", path), (2, "s", interface), (3, "s", member), (6, "s", destination))
    for code, signature, text in named:
        fields = _aligned(fields, 8) + bytes((code, 1)) + signature.encode() + b"\0" + _string(text)
    if words:
        types = b"s" * len(words)
        fields = _aligned(fields, 8) + b"\x08\x01g\0" + bytes((len(types),)) + types + b"\0"
    head = b"l" + bytes((_CALL, 0, 1)) + struct.pack("<III", len(body), serial, len(fields))
    return _aligned(head + fields, 8) + body


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<I", len(data)) + data + b"\0"


def _aligned(data: bytes, to: int) -> bytes:
    return data + b"\0" * (-len(data) % to)
