# SPDX-License-Identifier: Apache-2.0
"""The encrypted connection alone: what it promises to the two ends of a stream."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from haoperator.replica._hotpath import Channel
from tests.replica.channels import TIMEOUT_MS, Wire, both, channels
from tests.replica.pair import KEY, wait_for

LARGE = 8 << 20
"""More than the buffers of a socket hold."""


def errno_of(call: Callable[[], object]) -> int | None:
    with pytest.raises(OSError) as caught:
        call()
    return caught.value.errno


def test_both_directions_carry_at_the_same_time() -> None:
    ends = channels()
    sent = [os.urandom(LARGE), os.urandom(LARGE)]
    got = [b"", b""]

    def take(n: int) -> None:
        got[n] = ends[n].receive(LARGE, TIMEOUT_MS)

    threads = [threading.Thread(target=take, args=(n,)) for n in (0, 1)]
    threads += [
        threading.Thread(target=ends[n].send, args=(sent[1 - n], TIMEOUT_MS)) for n in (0, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [hashlib.sha256(data).digest() for data in got] == [
        hashlib.sha256(data).digest() for data in sent
    ]


def test_sender_that_waits_does_not_hold_up_the_receiver() -> None:
    ours, theirs = channels()
    sender = threading.Thread(target=ours.send, args=(bytes(LARGE), TIMEOUT_MS))
    sender.start()
    for n in range(100):  # the other end reads nothing: the sender is stuck
        theirs.send(b"%03d" % n, TIMEOUT_MS)
        assert ours.receive(3, TIMEOUT_MS) == b"%03d" % n
    assert sender.is_alive()
    assert theirs.receive(LARGE, TIMEOUT_MS) == bytes(LARGE)
    sender.join()


def test_messages_of_several_threads_stay_whole() -> None:
    ours, theirs = channels()

    def send(letter: bytes) -> None:
        for _ in range(20):
            ours.send(letter * 200_000, TIMEOUT_MS)

    threads = [threading.Thread(target=send, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for _ in range(60):
        message = theirs.receive(200_000, TIMEOUT_MS)
        assert message == message[:1] * 200_000
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("wait", ["receive", "send"])
def test_shutting_down_wakes_whoever_waits(wait: str) -> None:
    ours, _theirs = channels()
    began = threading.Event()
    failed: list[int | None] = []

    def work() -> None:
        began.set()
        if wait == "send":
            failed.append(errno_of(lambda: ours.send(bytes(LARGE), -1)))
        else:
            failed.append(errno_of(lambda: ours.receive(1, -1)))

    thread = threading.Thread(target=work)
    thread.start()
    began.wait()
    ours.shut()
    thread.join(10)
    assert not thread.is_alive()
    assert failed[0] in (errno.EPIPE, errno.ECONNRESET)


def test_end_of_the_connection_is_told() -> None:
    ours, theirs = channels()
    theirs.send(b"last", TIMEOUT_MS)
    theirs.close()
    assert ours.receive(4, TIMEOUT_MS) == b"last"
    assert errno_of(lambda: ours.receive(1, TIMEOUT_MS)) == errno.ECONNRESET


def test_closed_channel_is_of_no_use_and_harmless() -> None:
    ours, _theirs = channels()
    ours.close()
    ours.close()
    ours.shut()
    assert errno_of(lambda: ours.send(b"x", TIMEOUT_MS)) == errno.EPIPE
    assert errno_of(lambda: ours.receive(1, TIMEOUT_MS)) == errno.EPIPE


def test_silence_ends_a_wait() -> None:
    ours, theirs = channels()
    assert errno_of(lambda: ours.receive(1, 50)) == errno.ETIMEDOUT
    theirs.send(b"xy", TIMEOUT_MS)
    assert ours.receive(2, TIMEOUT_MS) == b"xy"  # it goes on afterwards
    assert errno_of(lambda: theirs.send(bytes(LARGE), 50)) == errno.ETIMEDOUT


@contextlib.contextmanager
def by_hand() -> Iterator[tuple[Channel, socket.socket, socket.socket, Channel]]:
    """Client, the socket at its other end, the one at the server's other end, server.

    After the handshake nothing passes from the one socket to the other by itself.
    """
    near, near_wire = socket.socketpair()
    far_wire, far = socket.socketpair()
    greeted = threading.Event()

    def carry(source: socket.socket, sink: socket.socket) -> None:
        source.settimeout(0.01)
        while not greeted.is_set():
            with contextlib.suppress(TimeoutError):
                sink.sendall(source.recv(65536))
        source.settimeout(10)

    with near_wire, far_wire:
        ways = ((near_wire, far_wire), (far_wire, near_wire))
        threads = [threading.Thread(target=carry, args=way) for way in ways]
        for thread in threads:
            thread.start()
        client, server = both(near, far)
        greeted.set()
        for thread in threads:
            thread.join()
        assert isinstance(client, Channel), client
        assert isinstance(server, Channel), server
        yield client, near_wire, far_wire, server


def test_record_may_come_byte_by_byte() -> None:
    with by_hand() as (client, near_wire, far_wire, server):
        client.send(b"in pieces", TIMEOUT_MS)
        record = near_wire.recv(65536)

        def dribble() -> None:
            for n in range(len(record)):
                far_wire.sendall(record[n : n + 1])

        thread = threading.Thread(target=dribble)
        thread.start()
        assert server.receive(9, TIMEOUT_MS) == b"in pieces"
        thread.join()


def test_bytes_that_prove_nothing_are_no_sign_of_life() -> None:
    with by_hand() as (client, near_wire, far_wire, server):
        client.send(b"never whole", TIMEOUT_MS)
        record = near_wire.recv(65536)
        over = threading.Event()

        def trickle() -> None:
            for n in range(len(record) - 1):
                far_wire.sendall(record[n : n + 1])
                if over.wait(0.02):
                    return
            over.set()  # it would have waited for all of them

        thread = threading.Thread(target=trickle)
        thread.start()
        assert errno_of(lambda: server.receive(11, 60)) == errno.ETIMEDOUT
        assert not over.is_set()
        over.set()
        thread.join()


def test_changed_byte_ends_the_connection() -> None:
    with by_hand() as (client, near_wire, far_wire, server):
        client.send(b"what was sent", TIMEOUT_MS)
        record = bytearray(near_wire.recv(65536))
        record[len(record) // 2] ^= 1
        far_wire.sendall(record)
        assert errno_of(lambda: server.receive(13, TIMEOUT_MS)) == errno.EBADMSG
        assert errno_of(lambda: server.send(b"x", TIMEOUT_MS)) == errno.EPIPE


def test_record_that_is_repeated_or_left_out_ends_the_connection() -> None:
    for order in ((0, 0), (1,)):
        with by_hand() as (client, near_wire, far_wire, server):
            records = []
            for data in (b"first", b"other"):
                client.send(data, TIMEOUT_MS)
                records.append(near_wire.recv(65536))
            for n in order:
                far_wire.sendall(records[n])
            with pytest.raises(OSError, match="Bad message"):
                server.receive(10, TIMEOUT_MS)


def test_keys_are_renewed_before_they_wear_out() -> None:
    def records_on_the_wire(rekey_after: int) -> int:
        listening = socket.create_server(("127.0.0.1", 0))
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = free.getsockname()
        with listening, Wire(address, listening.getsockname()) as wire:
            near = socket.create_connection(address)
            far, _ = listening.accept()
            client, server = both(near, far, rekey_after=rekey_after)
            assert isinstance(client, Channel), client
            assert isinstance(server, Channel), server
            before = len(wire.forth)
            for n in range(40):
                client.send(b"%02d" % n, TIMEOUT_MS)
                assert server.receive(2, TIMEOUT_MS) == b"%02d" % n
                server.send(b"back", TIMEOUT_MS)
                assert client.receive(4, TIMEOUT_MS) == b"back"
            client.close()
            server.close()
            sent, at, count = bytes(wire.forth[before:]), 0, 0
            while at < len(sent):
                at += 5 + int.from_bytes(sent[at + 3 : at + 5], "big")
                count += 1
            return count

    assert records_on_the_wire(rekey_after=1 << 22) == 40
    assert records_on_the_wire(rekey_after=4) == 40 + 9


def test_other_key_is_refused_on_both_sides() -> None:
    ends = both(*socket.socketpair(), keys=(bytes.fromhex(KEY), b"k" * 32))
    for end in ends:
        assert isinstance(end, OSError)
        assert end.errno == errno.EKEYREJECTED
        assert end.strerror == "the peer does not hold our cluster.key"


def test_key_of_another_length_is_no_key() -> None:
    ours, theirs = socket.socketpair()
    with theirs, pytest.raises(ValueError, match="32 bytes"):
        Channel(ours.detach(), b"short", False, TIMEOUT_MS)


def test_socket_belongs_to_the_channel_even_if_the_handshake_fails() -> None:
    ours, theirs = socket.socketpair()
    number = ours.fileno()
    with theirs:
        theirs.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert errno_of(lambda: Channel(ours.detach(), b"k" * 32, True, TIMEOUT_MS)) == errno.EPROTO
    assert errno_of(lambda: fcntl.fcntl(number, fcntl.F_GETFD)) == errno.EBADF


def test_channel_gives_its_socket_back_with_its_last_user() -> None:
    ours, theirs = socket.socketpair()
    number = ours.fileno()
    client, server = both(ours, theirs)
    assert isinstance(server, Channel), server
    del client
    wait_for(lambda: not os.path.exists(f"/proc/self/fd/{number}"), "it is closed")
    assert errno_of(lambda: server.receive(1, TIMEOUT_MS)) == errno.ECONNRESET
