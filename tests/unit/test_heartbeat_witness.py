# SPDX-License-Identifier: Apache-2.0
"""The witnesses: only an answer to our own question counts, from when that was asked."""

from __future__ import annotations

import asyncio
import select
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from haoperator.heartbeat import connect
from haoperator.heartbeat.ping import Ping
from haoperator.heartbeat.witness import Reach, Witness, period
from haoperator.lean.checksum import checksum
from tomlconfig.model import Witness as Model


def test_checksum_is_that_of_rfc_1071() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D
    assert checksum(b"\x01") == 0xFEFF


def test_asked_four_times_within_the_freshness_and_twice_a_second() -> None:
    assert period(2.0) == 0.25
    assert period(30.0) == 0.5
    assert period(0.3) == pytest.approx(0.0375)


def test_without_addresses_there_is_no_witness() -> None:
    assert Witness(None, 2.0, lambda: None).reach(0.0) is Reach.NONE


def test_answer_counts_from_the_question_on_however_late_it_comes() -> None:
    answers: list[tuple[str, float]] = []
    ping = Ping(("127.0.0.1",), lambda *answer: answers.append(answer))
    sockets = ping.open()
    try:
        ping.ask(10.0)
        ping.ask(11.0)
        deadline = time.monotonic() + 5
        while len(answers) < 2:
            assert select.select(sockets, [], [], deadline - time.monotonic())[0], "no answer"
            ping.drain()
        assert sorted(answers) == [("127.0.0.1", 10.0), ("127.0.0.1", 11.0)]
    finally:
        ping.close()


def test_forged_answer_proves_nothing() -> None:
    answers: list[tuple[str, float]] = []
    ping = Ping(("127.0.0.1",), lambda *answer: answers.append(answer))
    sockets = ping.open()
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as forger:
            identifier = sockets[0].getsockname()[1]  # of an ICMP datagram socket (icmp(7))
            reply = struct.pack("!BBHHH", 0, 0, 0, identifier, 1) + b"sixteen bytes!!!"
            summed = reply[:2] + struct.pack("!H", checksum(reply)) + reply[4:]
            forger.sendto(summed, ("127.0.0.1", 0))
        assert select.select(sockets, [], [], 5)[0], "the forged answer did not arrive"
        ping.drain()
        assert not answers
    finally:
        ping.close()


async def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.005)


@asynccontextmanager
async def asking(model: Model, detect: float) -> AsyncIterator[Witness]:
    witness = Witness(model, detect, lambda: None)
    task = asyncio.create_task(witness.ask_for_ever())
    try:
        yield witness
    finally:
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def server(host: str, answer: bytes | None) -> AsyncIterator[str]:
    """Listens, and answers everything with `answer`; with None it says nothing."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(1000):
                if answer is not None:
                    writer.write(answer)
                    await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, host, 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        yield f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("kind", ["ping", "tcp", "http"])
def test_each_kind_is_reachable_while_it_answers_and_not_for_long_after(
    kind: str, host: str
) -> None:
    async def story() -> None:
        detect = 1.0
        async with server(host, b"HTTP/1.1 404 Not Found\r\n\r\n") as place:
            target = {"ping": host, "tcp": place, "http": f"http://{place}/health"}[kind]
            async with asking(Model(**{kind: (target,)}), detect) as witness:
                assert witness.reach(time.monotonic()) is Reach.UNREACHABLE
                await _until(
                    lambda: witness.reach(time.monotonic()) is Reach.REACHABLE, "no answer"
                )
                (told,) = witness.evidence(time.monotonic())
                assert (told["kind"], told["target"]) == (kind, target)
                assert isinstance(told["age"], float)
                assert 0 <= told["age"] < detect / 2
        assert witness.reach(time.monotonic() + detect / 2) is Reach.UNREACHABLE

    asyncio.run(story())


def test_one_witness_that_answers_is_enough_beside_those_that_do_not() -> None:
    async def story() -> None:
        async with server("127.0.0.1", None) as place:
            model = Model(ping=("255.255.255.255",), tcp=(place,), http=(f"http://{place}",))
            async with asking(model, 1.0) as witness:
                await _until(
                    lambda: witness.reach(time.monotonic()) is Reach.REACHABLE, "no answer"
                )
                ages = {told["kind"]: told["age"] for told in witness.evidence(time.monotonic())}
                assert ages["ping"] is None
                assert ages["http"] is None

    asyncio.run(story())


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.2", b"HTTP/1.1 abc", b"HTTP/1.1"])
def test_what_speaks_no_http_is_no_http_witness(answer: bytes) -> None:
    async def story() -> None:
        async with server("127.0.0.1", answer) as place:
            with pytest.raises((ConnectionError, TimeoutError)):
                async with asyncio.timeout(0.5):
                    await connect.speaks_http(f"http://{place}")

    asyncio.run(story())


def test_refused_connection_is_no_answer() -> None:
    async def story() -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            with pytest.raises(ConnectionRefusedError):
                await connect.accepts(f"127.0.0.1:{free.getsockname()[1]}")

    asyncio.run(story())
