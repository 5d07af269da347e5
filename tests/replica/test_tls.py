# SPDX-License-Identifier: Apache-2.0
"""Nobody reads the stream on its way, changes it, or takes part without the key."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from tests.replica.channels import Wire
from tests.replica.pair import KEY, ROOT, Node, Pair, wait_for
from tests.replica.trees import assert_equal_trees
from tests.replica.writer import Writer, lines_in

OTHER_KEY = "5b" * 32
ANOTHER_KEY = "the peer does not hold our cluster.key"


@pytest.fixture
def wire(pair: Pair) -> Iterator[Wire]:
    """What node a says to node b goes through it."""
    pair.a.settings["links"] = [["lo", "127.0.77.1", "127.0.77.9"]]
    with Wire(("127.0.77.9", pair.port), ("127.0.77.2", pair.port)) as wire:
        yield wire
        pair.stop()  # before the wire, which would wait for its connections to end


def test_nothing_can_be_read_on_the_way(pair: Pair, wire: Wire) -> None:
    marker = os.urandom(8).hex().encode()
    early = pair.a.path / f"early-{marker.decode()}"
    early.write_bytes(marker * 1000)  # copied by the resync
    pair.replicate()
    for n in range(20):
        name = f"{marker.decode()}-{n}"
        (pair.a.path / name).write_bytes(marker * 1000)
        assert (pair.b.path / name).read_bytes() == marker * 1000
    assert (pair.b.path / early.name).read_bytes() == marker * 1000
    assert len(wire.forth) > 21 * 1000 * len(marker)
    assert b"haoperator" in wire.forth  # the name of the key, in the one part that is readable
    for secret in (marker, b"generation", b"accept", bytes.fromhex(KEY), KEY.encode()):
        assert secret not in wire.forth
        assert secret not in wire.back


def more_streams(pair: Pair, before: int) -> bool:
    return int(pair.a.state["hot"]["epoch"]) > before


def test_changed_byte_cuts_the_stream_and_loses_nothing(pair: Pair, wire: Wire) -> None:
    def flip(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[len(changed) // 2] ^= 0x10
        return bytes(changed)

    pair.replicate()
    streams = pair.a.state["hot"]["epoch"]
    with Writer(pair.a.path / "log") as writer:
        for turn in range(3):
            writer.advances()
            wire.spoil(flip)
            assert wire.spoilt.wait(20)
            wait_for(partial(more_streams, pair, streams + turn), "another stream")
            pair.a.wait_stream("synced")
    assert writer.error == ""
    assert lines_in(pair.b.backing / "log") >= writer.acknowledged
    assert_equal_trees(pair.a.backing, pair.b.backing)


def knows_why(node: Node) -> bool:
    return bool(node.state["refusal"] == ANOTHER_KEY)


def logs(node: Node, text: str) -> bool:
    return text in node.log_text()


def test_nodes_with_different_keys_say_so_and_meet_when_it_is_put_right(pair: Pair) -> None:
    pair.b.settings["key"] = OTHER_KEY
    pair.start()
    pair.a.begin()
    for node in (pair.a, pair.b):
        wait_for(partial(knows_why, node), "it knows why")
    for node, peer in ((pair.a, "127.0.77.2"), (pair.b, "127.0.77.1")):
        complaint = f"connection from {peer} refused: {ANOTHER_KEY}"
        wait_for(partial(logs, node, complaint), complaint)
    (pair.a.path / "file").write_text("written alone")
    assert pair.a.stream == "alone"
    assert pair.a.state["heard"] == 0  # somebody without the key is not the peer

    pair.b.power_cut()
    pair.b.settings["key"] = KEY
    pair.b.boot()
    pair.a.wait_stream("synced")
    assert pair.a.state["refusal"] == ""
    wait_for(lambda: pair.b.state["refusal"] == "", "nobody refuses any more")
    assert_equal_trees(pair.a.backing, pair.b.backing)


def s_client(pair: Pair, *options: str) -> str:
    """What OpenSSL's own client says about node b."""
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.77.2:{pair.port}", *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=20,
    )
    return done.stdout


def test_holder_of_the_key_speaks_tls_1_3_with_a_fresh_secret(shared: Pair) -> None:
    said = s_client(shared, "-psk", KEY, "-psk_identity", "haoperator")
    assert "Reused, TLSv1.3, Cipher is TLS_AES_128_GCM_SHA256" in said
    assert "Server Temp Key: X25519" in said
    assert "no peer certificate available" in said


@pytest.mark.parametrize(
    "options",
    [
        ["-tls1_3"],
        ["-tls1_3", "-psk", OTHER_KEY, "-psk_identity", "haoperator"],
        ["-tls1_3", "-psk", KEY, "-psk_identity", "somebody"],
        ["-tls1_3", "-psk", KEY, "-psk_identity", "haoperator"]
        + ["-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"],
        ["-tls1_2"],
        ["-tls1_2", "-psk", KEY, "-psk_identity", "haoperator", "-cipher", "PSK"],
    ],
    ids=[
        "no key",
        "other key",
        "other identity",
        "other cipher",
        "TLS 1.2",
        "TLS 1.2 with the key",
    ],
)
def test_client_that_is_not_ours_is_refused(shared: Pair, options: list[str]) -> None:
    said = s_client(shared, *options)
    assert "CONNECTED" in said
    assert "Cipher is (NONE)" in said
    (shared.a.path / f"after-{os.urandom(4).hex()}").write_text("x")
    assert shared.a.stream == "synced"
    assert_equal_trees(shared.a.backing, shared.b.backing)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options that make OpenSSL's server show one."""
    base = tmp_path_factory.mktemp("certificate")
    key, certificate = str(base / "key.pem"), str(base / "certificate.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=b"]
        + ["-days", "2", "-keyout", key, "-out", certificate],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    return ["-cert", certificate, "-key", key]


@contextlib.contextmanager
def s_server(pair: Pair, *options: str) -> Iterator[None]:
    """OpenSSL's server in the place of node b's replicator."""
    process = subprocess.Popen(
        ["openssl", "s_server", "-accept", f"127.0.77.2:{pair.port}", "-quiet", *options],
        stdin=subprocess.PIPE,  # its end would be the end of the server
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with process:
        try:
            yield
        finally:
            process.kill()


def refused_by_a(pair: Pair, reason: str) -> None:
    """Node a gives such a server nothing but the reason."""
    pair.a.boot()
    pair.a.begin()
    wait_for(lambda: reason in pair.a.state["refusal"], reason)
    assert pair.a.stream == "alone"
    assert pair.a.state["heard"] == 0


def test_server_with_a_certificate_instead_of_the_key_is_refused(
    pair: Pair, certificate: list[str]
) -> None:
    with s_server(pair, "-tls1_3", *certificate):
        refused_by_a(pair, ANOTHER_KEY)


def test_server_with_another_key_is_refused(pair: Pair) -> None:
    with s_server(pair, "-nocert", "-psk", OTHER_KEY, "-psk_identity", "haoperator"):
        refused_by_a(pair, ANOTHER_KEY)


def test_server_of_tls_1_2_is_refused(pair: Pair, certificate: list[str]) -> None:
    with s_server(pair, "-tls1_2", *certificate):
        refused_by_a(pair, "not a replicator: tlsv1 alert protocol version")


def test_server_that_speaks_no_tls_is_refused(pair: Pair) -> None:
    with socket.create_server(("127.0.77.2", pair.port)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = listening.accept()
                    with sock:
                        sock.sendall(b"220 mail.example.org ESMTP\r\n")
                        sock.recv(65536)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            refused_by_a(pair, "not a replicator: wrong version number")
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_replicator_has_openssl_without_pythons_modules_for_it() -> None:
    """The extension links it; Python's `ssl` would cost memory for nothing."""
    program = "import haoperator.replica.__main__; print(open('/proc/self/maps').read())"
    loaded = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    assert "/libssl.so.3" in loaded
    assert "/_ssl." not in loaded
    assert "/_hashlib." not in loaded
