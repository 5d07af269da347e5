# SPDX-License-Identifier: Apache-2.0
"""The arbiter against a real etcd: a generation has one heir, whoever asks and whatever fails."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from haoperator.operator.arbiter import ArbiterError, claim, disclaim, heir

PATIENCE = 30.0


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a store of one member."""
    where = tmp_path_factory.mktemp("etcd")
    client, peer = (f"http://127.0.0.1:{_free_port()}" for _ in range(2))
    with (
        (where / "log").open("wb") as log,
        subprocess.Popen(
            [
                *("/usr/bin/etcd", "--data-dir", str(where / "data"), "--unsafe-no-fsync"),
                *("--listen-client-urls", client, "--advertise-client-urls", client),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--initial-cluster", f"default={peer}"),
            ],
            stdout=log,
            stderr=log,
        ) as process,
    ):
        try:
            _until_it_answers(client, where / "log")
            yield client
        finally:
            process.terminate()


def _until_it_answers(url: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            asyncio.run(heir([url], "none", "0", 1.0))
            return
        except ArbiterError as err:
            assert time.monotonic() < deadline, f"{err}\n{log.read_text()}"
            time.sleep(0.05)


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> str:
    """A name of its own, so that no test sees another one's heirs."""
    name: str = request.node.name
    return name


def test_first_to_claim_is_the_heir_for_ever(etcd: str, cluster: str) -> None:
    async def story() -> None:
        assert await heir([etcd], cluster, "g1", 5.0) == ""
        assert await claim([etcd], cluster, "g1", "node-a", 5.0) is True
        assert await claim([etcd], cluster, "g1", "node-b", 5.0) is False
        assert await claim([etcd], cluster, "g1", "node-a", 5.0) is True
        assert await heir([etcd], cluster, "g1", 5.0) == "node-a"

    asyncio.run(story())


def test_each_generation_of_each_cluster_has_an_heir_of_its_own(etcd: str, cluster: str) -> None:
    async def story() -> None:
        assert await claim([etcd], cluster, "g1", "node-a", 5.0)
        assert await claim([etcd], cluster, "g2", "node-b", 5.0)
        assert await claim([etcd], f"{cluster}-2", "g1", "node-b", 5.0)

    asyncio.run(story())


def test_of_two_that_race_exactly_one_is_granted(etcd: str, cluster: str) -> None:
    async def story() -> None:
        winners = set()
        for number in range(40):
            nodes = ("node-a", "node-b") if number % 2 else ("node-b", "node-a")
            granted = await asyncio.gather(
                *(claim([etcd], cluster, f"g{number}", node, 5.0) for node in nodes)
            )
            assert sorted(granted) == [False, True]
            winner = nodes[granted.index(True)]
            assert await heir([etcd], cluster, f"g{number}", 5.0) == winner
            winners.add(winner)
        assert winners == {"node-a", "node-b"}  # or they never raced

    asyncio.run(story())


def test_only_the_heir_gives_a_claim_back(etcd: str, cluster: str) -> None:
    async def story() -> None:
        assert await disclaim([etcd], cluster, "g1", "node-a", 5.0) == ""
        assert await claim([etcd], cluster, "g1", "node-a", 5.0)
        assert await disclaim([etcd], cluster, "g1", "node-b", 5.0) == "node-a"
        assert await claim([etcd], cluster, "g1", "node-b", 5.0) is False
        assert await disclaim([etcd], cluster, "g1", "node-a", 5.0) == ""
        assert await claim([etcd], cluster, "g1", "node-b", 5.0) is True

    asyncio.run(story())


def test_next_endpoint_is_asked_when_one_is_down_or_hangs(etcd: str, cluster: str) -> None:
    async def story() -> None:
        down = f"http://127.0.0.1:{_free_port()}"
        async with server(lambda: None) as hangs:
            assert await claim([down, hangs, etcd], cluster, "g1", "node-a", 3.0) is True
        with pytest.raises(ArbiterError, match=f"{down}: .*refused"):
            await claim([down], cluster, "g1", "node-a", 3.0)

    asyncio.run(story())


def test_all_endpoints_together_take_no_longer_than_the_timeout() -> None:
    async def story() -> None:
        async with server(lambda: None) as first, server(lambda: None) as second:
            began = time.monotonic()
            with pytest.raises(ArbiterError, match=r"no answer within .*no answer within"):
                await claim([first, second], "shop", "g1", "node-a", 0.5)
            assert 0.4 < time.monotonic() - began < 1.5

    asyncio.run(story())


ETCD_HEADER = b'{"header":{"revision":"7"}'
RANGE = b',"responses":[{"response_range":{"kvs":[{"value":'


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "not HTTP"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not HTTP"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", "HTTP status 302"),
        (b'HTTP/1.1 503 Gone\r\n\r\n{"error":"etcdserver: no leader"}', "503: .*no leader"),
        (b"HTTP/1.0 200 OK\r\n\r\n", "not etcd's"),
        (b"HTTP/1.0 200 OK\r\n\r\n<html>Welcome to the Wi-Fi</html>", "not etcd's"),
        (b'HTTP/1.0 200 OK\r\n\r\n{"succeeded":true}', "not etcd's"),
        (b"HTTP/1.0 200 OK\r\n\r\n[true]", "not etcd's"),
        (b"HTTP/1.0 200 OK\r\n\r\n" + ETCD_HEADER + b"}", "not etcd's"),
        (b"HTTP/1.0 200 OK\r\n\r\n" + ETCD_HEADER + RANGE + b'"bm9kZS', "not etcd's"),
        (b"HTTP/1.0 200 OK\r\n\r\n" + ETCD_HEADER + RANGE + b'"?"}]}}]}', "not etcd's"),
        (b"HTTP/1.0 200 OK\r\n\r\n" + ETCD_HEADER + RANGE + b"3}]}}]}", "not etcd's"),
        (
            b"HTTP/1.0 200 OK\r\n\r\n" + ETCD_HEADER + b',"responses":[{"response_range":{}}]}',
            "contradicts itself",
        ),
        (b"HTTP/1.0 200 OK\r\n\r\n" + b" " * 70_000, "too long"),
    ],
)
def test_rubbish_grants_nothing_and_is_told(answer: bytes, reason: str) -> None:
    async def story() -> None:
        async with server(lambda: answer) as url:
            with pytest.raises(ArbiterError, match=reason):
                await claim([url], "shop", "g1", "node-a", 5.0)

    asyncio.run(story())


@asynccontextmanager
async def server(answer: Callable[[], bytes | None]) -> AsyncIterator[str]:
    """One that answers every question with the same bytes, or never (None)."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if (said := answer()) is None:
                await reader.read()  # until the client has had enough
            else:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(said)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        host, port = listening.sockets[0].getsockname()
        yield f"http://{host}:{port}"
