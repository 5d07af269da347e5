# SPDX-License-Identifier: Apache-2.0
"""The first words of a replication connection: who is there, and what shall be done.

TLS comes first and proves the key both ways (channel.c, tls.c). All else is said inside,
one JSON object at a time, within SECONDS altogether:

    primary                               standby
    greeting                   ->
                               <-         greeting, or {refuse}
    {record, ...} or {knock}   ->
                               <-         {accept: "whole" | "noted" | "synced"} or {refuse, reason}

A greeting says which node of which cluster speaks, the protocol versions that it knows,
and its feature bits. Both use the highest version that both know, and the features that
both have. So two versions of the program work together during an upgrade; greetings
themselves never change, but for fields that the other side may pass over.
"""

from __future__ import annotations

import errno
import json
import socket
import struct
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from haoperator.replica._hotpath import Channel
from haoperator.replica.settings import Settings

SECONDS = 5.0
MOST_JSON = 64 * 1024

Json = Mapping[str, Any]


class HandshakeError(Exception):
    """The other side is not our peer, or speaks another language."""


class LinkFailed(HandshakeError):
    """The connection does not carry a conversation; another link may."""


@dataclass(frozen=True, slots=True)
class Spoken:
    """The protocol versions that a node knows, and its feature bits."""

    lowest: int
    highest: int
    features: int

    def __str__(self) -> str:
        return f"{self.lowest} to {self.highest}"


SPOKEN = Spoken(lowest=1, highest=1, features=0)
"""This program's. A version is what frames look like and mean; a feature may be left out."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What both sides use."""

    version: int
    features: int


@dataclass(frozen=True, slots=True)
class Meeting:
    """Both have proved themselves and agree."""

    channel: Channel
    agreement: Agreement
    asked: Json
    """What the primary says."""
    answer: Json
    """What the standby says to it; empty on the standby, which has not said it yet."""


@dataclass(frozen=True, slots=True)
class _Greeting:
    cluster: str
    node: str
    spoken: Spoken
    refuse: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "cluster": self.cluster,
            "node": self.node,
            "lowest": self.spoken.lowest,
            "highest": self.spoken.highest,
            "features": self.spoken.features,
            "refuse": self.refuse,
        }

    @classmethod
    def from_json(cls, said: Json) -> _Greeting:
        words = [said.get(name) for name in ("cluster", "node", "refuse")]
        numbers = [said.get(name) for name in ("lowest", "highest", "features")]
        if not all(isinstance(word, str) for word in words) or not all(
            isinstance(number, int) for number in numbers
        ):
            raise HandshakeError("does not greet")
        cluster, node, refuse = map(str, words)
        return cls(cluster, node, Spoken(*numbers), refuse)  # type: ignore[arg-type]


def as_primary(
    sock: socket.socket, settings: Settings, hello: Callable[[], Json], spoken: Spoken = SPOKEN
) -> Meeting:
    """Speak first, until the standby has answered. Takes the socket over.

    `hello` is asked as late as can be. Raises HandshakeError, LinkFailed.
    """
    try:
        until = time.monotonic() + SECONDS
        talk = _Talk(_open(sock, settings, server=False), until)
        mine = _Greeting(settings.cluster, settings.node, spoken)
        talk.say(mine.to_json())
        theirs = _Greeting.from_json(talk.hear())
        if theirs.refuse:
            raise HandshakeError(theirs.refuse)
        _check_name(theirs, settings)
        agreement = _agree(mine, theirs)
        asked = hello()
        talk.say(asked)
        return Meeting(talk.channel, agreement, asked, talk.hear())
    except OSError as err:
        raise _error_of(err) from err


def as_standby(sock: socket.socket, settings: Settings, spoken: Spoken = SPOKEN) -> Meeting:
    """Listen first, until the primary has said what it wants. Takes the socket over.

    Raises HandshakeError.
    """
    try:
        until = time.monotonic() + SECONDS
        talk = _Talk(_open(sock, settings, server=True), until)
        mine = _Greeting(settings.cluster, settings.node, spoken)
        theirs = _Greeting.from_json(talk.hear())
        try:
            _check_name(theirs, settings)
            agreement = _agree(mine, theirs)
        except HandshakeError as err:
            talk.say({**mine.to_json(), "refuse": str(err)})
            raise
        talk.say(mine.to_json())
        return Meeting(talk.channel, agreement, talk.hear(), {})
    except OSError as err:
        raise _error_of(err) from err


def answer(channel: Channel, said: Json) -> None:
    """The standby's last word. Raises OSError."""
    channel.send(_packed(said), int(SECONDS * 1000))


def _check_name(theirs: _Greeting, settings: Settings) -> None:
    """A node that was led back to itself holds the key, too."""
    if (theirs.cluster, theirs.node) != (settings.cluster, settings.peer):
        raise HandshakeError(
            f"{theirs.node} of {theirs.cluster} is not the peer of {settings.node}"
            f" of {settings.cluster}"
        )


def _agree(mine: _Greeting, theirs: _Greeting) -> Agreement:
    version = min(mine.spoken.highest, theirs.spoken.highest)
    if version < max(mine.spoken.lowest, theirs.spoken.lowest):
        raise HandshakeError(
            f"no protocol version in common: {mine.node} speaks {mine.spoken},"
            f" {theirs.node} {theirs.spoken}"
        )
    return Agreement(version, mine.spoken.features & theirs.spoken.features)


def _error_of(err: OSError) -> HandshakeError:
    """A refusal counts on every link; silence and the end of a connection are one link's."""
    reason = err.strerror or str(err) or type(err).__name__
    if err.errno in (errno.EKEYREJECTED, errno.EPROTO):
        return HandshakeError(reason)
    return LinkFailed(reason)


def _packed(said: Json) -> bytes:
    text = json.dumps(dict(said)).encode()
    return struct.pack("<I", len(text)) + text


def _open(sock: socket.socket, settings: Settings, *, server: bool) -> Channel:
    return Channel(sock.detach(), settings.key, server, int(SECONDS * 1000))


class _Talk:
    """JSON objects over a fresh channel, until one deadline."""

    def __init__(self, channel: Channel, until: float) -> None:
        self.channel = channel
        self._until = until

    def _left_ms(self) -> int:
        return max(0, int((self._until - time.monotonic()) * 1000))

    def say(self, said: Json) -> None:
        self.channel.send(_packed(said), self._left_ms())

    def hear(self) -> dict[str, Any]:
        (size,) = struct.unpack("<I", self.channel.receive(4, self._left_ms()))
        if size > MOST_JSON:
            raise HandshakeError("says too much")
        try:
            said = json.loads(self.channel.receive(size, self._left_ms()))
        except (ValueError, RecursionError) as err:
            raise HandshakeError("does not speak JSON") from err
        if not isinstance(said, dict):
            raise HandshakeError("does not say an object")
        return said
