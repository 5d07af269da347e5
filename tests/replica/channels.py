# SPDX-License-Identifier: Apache-2.0
"""Two ends of a channel without a network, and a wire that is listened to and spoilt."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Self

from haoperator.replica._hotpath import Channel
from tests.replica.pair import KEY

TIMEOUT_MS = 10_000
REKEY_AFTER = 1 << 22


def both(
    client: socket.socket,
    server: socket.socket,
    *,
    keys: tuple[bytes, bytes] = (bytes.fromhex(KEY), bytes.fromhex(KEY)),
    rekey_after: int = REKEY_AFTER,
) -> tuple[Channel | OSError, Channel | OSError]:
    """What became of the client's end, and of the server's."""
    found: list[Channel | OSError] = []

    def shake(sock: socket.socket, key: bytes, *, server: bool) -> Channel | OSError:
        try:
            return Channel(sock.detach(), key, server, TIMEOUT_MS, rekey_after)
        except OSError as err:
            return err

    thread = threading.Thread(target=lambda: found.append(shake(server, keys[1], server=True)))
    thread.start()
    ours = shake(client, keys[0], server=False)
    thread.join()
    return ours, found[0]


def channels(*, rekey_after: int = REKEY_AFTER) -> tuple[Channel, Channel]:
    """Two ends that trust each other."""
    return joined(*socket.socketpair(), rekey_after=rekey_after)


def joined(
    one: socket.socket, other: socket.socket, *, rekey_after: int = REKEY_AFTER
) -> tuple[Channel, Channel]:
    """The same, over these."""
    client, server = both(one, other, rekey_after=rekey_after)
    assert isinstance(client, Channel), client
    assert isinstance(server, Channel), server
    return client, server


Change = Callable[[bytes], bytes]


class Wire:
    """Listens at an address and carries every connection to another one.

    All that passes is recorded, by direction; `spoil` changes it once, on its way forth.
    """

    def __init__(self, listen: tuple[str, int], to: tuple[str, int]) -> None:
        self._to = to
        self._listening = socket.create_server(listen)
        self._ends: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._spoil: Change | None = None
        self.spoilt = threading.Event()
        self.forth = bytearray()
        self.back = bytearray()

    def __enter__(self) -> Self:
        self._spawn(self._serve)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listening.close()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in self._ends:
            end.close()

    def spoil(self, change: Change) -> None:
        """Change what passes forth next."""
        self.spoilt.clear()
        self._spoil = change

    def _spawn(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args)
        self._threads.append(thread)
        thread.start()

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            self._ends.append(near)
            try:
                far = socket.create_connection(self._to)
            except OSError:
                near.shutdown(socket.SHUT_RDWR)
                continue
            self._ends.append(far)
            self._spawn(self._carry, near, far, True)
            self._spawn(self._carry, far, near, False)

    def _carry(self, source: socket.socket, sink: socket.socket, forth: bool) -> None:
        record = self.forth if forth else self.back
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if forth and self._spoil is not None:
                    data, self._spoil = self._spoil(data), None
                    self.spoilt.set()
                record += data
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
