# SPDX-License-Identifier: Apache-2.0
"""The arbiter: etcd remembers the one node that may go on alone from a generation.

Before a node writes without its peer, it claims to be the *heir* of the generation that
both have in common: one transaction of etcd writes its name, if no name is there. A
generation has one heir at most, for ever, so at most one node ever goes on alone from it,
whatever the network does and however late anything arrives. No lease, no clock: a claim
never runs out, and need not be renewed.

A node that claimed, and did not go on alone after all, gives its claim back (`disclaim`)
when both are in step again: either may be the next heir then. The names of generations
that are over stay where they are, some 60 bytes for each failover: they keep a node that
was restored from an old backup from going on alone.

What it needs of the store: that it forgets no acknowledged write. Never restore it from a
backup while both nodes are not in step.

The JSON gateway of etcd 3.4 and newer (https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/),
in HTTP/1.0, whose answers end with the connection: no chunks, no proxy, no redirect.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

MOST_BYTES = 65_536
"""Of an answer; those of etcd have some 300."""


class ArbiterError(Exception):
    """No endpoint gave an answer that can be understood; the text says why, for each. The
    question may have been carried out nevertheless: asking again is harmless."""


async def claim(
    endpoints: Sequence[str], cluster: str, generation: str, node: str, timeout: float
) -> bool:
    """Whether `node` is the heir of `generation`: since now, or since an earlier claim.

    False: its peer is. Asks the endpoints (URLs) in order, within `timeout` seconds
    altogether. Raises ArbiterError.
    """
    key = _key(cluster, generation)
    put = {"request_put": {"key": key, "value": _encoded(node)}}
    found = await _transaction(endpoints, timeout, _unclaimed(key), put, key)
    if found == "":
        raise ArbiterError("the answer contradicts itself")
    return found is None or found == node


async def disclaim(
    endpoints: Sequence[str], cluster: str, generation: str, node: str, timeout: float
) -> str:
    """The heir of `generation` that is left, `""` for none, once `node` is not it any more.

    Otherwise as `claim`.
    """
    key = _key(cluster, generation)
    mine = {"key": key, "target": "VALUE", "result": "EQUAL", "value": _encoded(node)}
    delete = {"request_delete_range": {"key": key}}
    return await _transaction(endpoints, timeout, mine, delete, key) or ""


async def heir(endpoints: Sequence[str], cluster: str, generation: str, timeout: float) -> str:
    """The heir of `generation`, `""` for none: a question that changes nothing, but is answered
    by a majority of the store only, as a claim is. Otherwise as `claim`."""
    key = _key(cluster, generation)
    look = {"request_range": {"key": key}}
    return await _transaction(endpoints, timeout, _unclaimed(key), look, key) or ""


def _key(cluster: str, generation: str) -> str:
    return _encoded(f"/haoperator/{cluster}/heir/{generation}")


def _unclaimed(key: str) -> dict[str, str]:
    return {"key": key, "target": "CREATE", "result": "EQUAL", "create_revision": "0"}


def _encoded(text: str) -> str:
    return b64encode(text.encode()).decode()


async def _transaction(
    endpoints: Sequence[str],
    timeout: float,
    compare: dict[str, str],
    success: Mapping[str, object],
    key: str,
) -> str | None:
    """If `compare` holds, do `success`, None; else the text that `key` has, `""` for none."""
    otherwise = {"request_range": {"key": key}}
    question = {"compare": [compare], "success": [success], "failure": [otherwise]}
    body = json.dumps(question).encode()
    until = time.monotonic() + timeout
    reasons = []
    for index, endpoint in enumerate(endpoints):
        share = (until - time.monotonic()) / (len(endpoints) - index)
        try:
            async with asyncio.timeout(share):
                return _understood(await _post(endpoint, "/v3/kv/txn", body))
        except TimeoutError:
            reasons.append(f"{endpoint}: no answer within {share:.1f} s")
        except OSError as err:
            reasons.append(f"{endpoint}: {os.strerror(err.errno) if err.errno else err}")
        except ArbiterError as err:
            reasons.append(f"{endpoint}: {err}")
    raise ArbiterError("; ".join(reasons))


async def _post(endpoint: str, path: str, body: bytes) -> bytes:
    """The body of the answer. Raises OSError, or ArbiterError for anything but a success."""
    url = urlsplit(endpoint)
    assert url.hostname is not None, endpoint
    reader, writer = await asyncio.open_connection(url.hostname, url.port or 80)
    try:
        head = (
            f"POST {url.path.rstrip('/')}{path} HTTP/1.0\r\nHost: {url.netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = b""
        while piece := await reader.read(MOST_BYTES):
            answer += piece
            if len(answer) > MOST_BYTES:
                raise ArbiterError("the answer is too long for one of etcd")
    finally:
        writer.transport.abort()
    top, _, content = answer.partition(b"\r\n\r\n")
    match top.split(b"\r\n")[0].split(maxsplit=2):
        case [version, b"200", *_] if version.startswith(b"HTTP/1."):
            return content
        case [version, status, *_] if version.startswith(b"HTTP/1."):
            said = content.decode(errors="replace").strip()[:200]
            raise ArbiterError(f"HTTP status {status.decode(errors='replace')}: {said}")
        case _:
            raise ArbiterError("the answer is not HTTP")


def _understood(content: bytes) -> str | None:
    try:
        answer = json.loads(content)
        if answer["header"] and answer.get("succeeded") is True:  # left out when it is false
            return None
        found = answer["responses"][0]["response_range"].get("kvs", [])
        return b64decode(found[0]["value"], validate=True).decode() if found else ""
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as err:
        raise ArbiterError("the answer is not etcd's") from err
