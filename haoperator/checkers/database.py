# SPDX-License-Identifier: Apache-2.0
"""Does a database answer in its own language? Without a user, a password or a library.

A server that loads or recovers its data answers, and is well: who restarted it then
would begin that anew. What says that it cannot serve, is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from haoperator.checkers.conversation import Conversation, host_and_port, reason
from haoperator.checkers.promise import Answer

if TYPE_CHECKING:
    from collections.abc import Callable

_SSL_REQUEST = bytes.fromhex("00000008 04d2162f")
"""PostgreSQL, Message Formats: answered with one byte, before anything is asked or logged."""
_PING = b"*1\r\n$4\r\nPING\r\n"
_ALIVE = {
    b"+PONG": "answers",
    b"-NOAUTH": "answers, and asks for a password",
    b"-LOADING": "answers, and loads its data",
    b"-BUSY": "answers, and runs a script",
}
_LINE_BYTES = 512
_PACKET_BYTES = 1 << 16

# MySQL, Client/Server Protocol: Connection Phase.
_GREETINGS, _ERROR, _OTHER_METHOD = (9, 10), 0xFF, 0xFE
_LONG_PASSWORD, _PROTOCOL_41, _SECURE_CONNECTION, _PLUGIN_AUTH = 0x1, 0x200, 0x8000, 0x80000
_CAPABILITIES = _LONG_PASSWORD | _PROTOCOL_41 | _SECURE_CONNECTION | _PLUGIN_AUTH
_UTF8 = 33
_NOBODY = b"haoperator-checker\0"


def postgresql(target: str, timeout: float) -> Answer:
    """The server answers whether it speaks TLS, for which it starts a process of its own."""

    def ask(talk: Conversation) -> str:
        talk.say(_SSL_REQUEST)
        return "" if talk.hear(1) in (b"S", b"N") else "no PostgreSQL answer"

    return _asked(target, timeout, ask, "answers")


def redis(target: str, timeout: float) -> Answer:
    """`PING` is answered."""
    said = "answers"

    def ask(talk: Conversation) -> str:
        nonlocal said
        talk.say(_PING)
        line = talk.hear_until(lambda data: b"\n" in data, _LINE_BYTES).split(b"\r\n")[0]
        word = line.split(b" ")[0]
        if word in _ALIVE:
            said = _ALIVE[word]
            return ""
        if line.startswith(b"-"):
            return line[1:].decode(errors="replace")
        return "no Redis answer"

    return _asked(target, timeout, ask, lambda: said)


def mysql(target: str, timeout: float) -> Answer:
    """The server greets, and refuses somebody whom it does not know. To go away before that
    would count against this node, until the server blocks it (`max_connect_errors`)."""

    def ask(talk: Conversation) -> str:
        sequence, greeting = _packet(talk)
        if greeting[:1] == bytes((_ERROR,)):
            return "" if len(greeting) > 2 else "no MySQL answer"
        if not greeting or greeting[0] not in _GREETINGS or b"\0" not in greeting[1:64]:
            return "no MySQL answer"
        head = _CAPABILITIES.to_bytes(4, "little") + _PACKET_BYTES.to_bytes(4, "little")
        name = _NOBODY + b"\0" + b"mysql_native_password\0"
        _send(talk, sequence + 1, head + bytes((_UTF8,)) + bytes(23) + name)
        sequence, answer = _packet(talk)
        if answer[:1] == bytes((_OTHER_METHOD,)):
            _send(talk, sequence + 1, b"")
            _packet(talk)
        return ""

    return _asked(target, timeout, ask, "answers")


def _packet(talk: Conversation) -> tuple[int, bytes]:
    """Its number, and what is in it."""
    head = talk.hear(4)
    size = int.from_bytes(head[:3], "little")
    if size > _PACKET_BYTES:
        raise OSError("no MySQL answer")
    return head[3], talk.hear(size)


def _send(talk: Conversation, sequence: int, data: bytes) -> None:
    talk.say(len(data).to_bytes(3, "little") + bytes((sequence & 0xFF,)) + data)


def _asked(
    target: str,
    timeout: float,
    ask: Callable[[Conversation], str],
    well: str | Callable[[], str],
) -> Answer:
    """`ask` returns what is wrong, `""` if nothing is."""
    try:
        with Conversation(*host_and_port(target), timeout) as talk:
            trouble = ask(talk)
    except OSError as err:
        trouble = reason(err, timeout)
    if trouble:
        return Answer(False, f"{target}: {trouble}")
    return Answer(True, f"{target} {well if isinstance(well, str) else well()}")
