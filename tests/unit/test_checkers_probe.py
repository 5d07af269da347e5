# SPDX-License-Identifier: Apache-2.0
"""The probes, against real servers on loopback and real commands."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from haoperator.checkers import command, network, web
from haoperator.checkers.promise import Answer, Promise

Serve = Callable[[bytes | None], int]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server that sends this to whoever connects (None: it stays silent)."""
    listeners: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def loop(listener: socket.socket, answer: bytes | None) -> None:
        kept = []
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                break
            if answer is None:
                kept.append(connection)
                continue
            with connection:
                connection.recv(4096)
                connection.sendall(answer)
        for connection in kept:
            connection.close()

    def start(answer: bytes | None) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        thread = threading.Thread(target=loop, args=(listener, answer))
        thread.start()
        listeners.append(listener)
        threads.append(thread)
        port: int = listener.getsockname()[1]
        return port

    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
    for thread in threads:
        thread.join(5)


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@pytest.mark.parametrize(
    ("status", "right"),
    [("200 OK", True), ("302 Found", True), ("404 No", False), ("503 No", False)],
)
def test_http_status_decides(serve: Serve, status: str, right: bool) -> None:
    port = serve(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
    answer = web.http(f"http://127.0.0.1:{port}/health?deep=1", 5)
    assert answer.right is right
    assert status[:3] in answer.text


def test_http_silence_refusal_and_nonsense_are_wrong_answers(serve: Serve) -> None:
    begin = time.monotonic()
    assert "no answer within 0.2 s" in web.http(f"http://127.0.0.1:{serve(None)}/", 0.2).text
    assert time.monotonic() - begin < 2
    assert "refused" in web.http(f"http://127.0.0.1:{unused_port()}/", 5).text
    assert "no HTTP answer" in web.http(f"http://127.0.0.1:{serve(b'SSH-2.0-x')}/", 5).text
    assert not web.http(f"https://127.0.0.1:{serve(b'HTTP/1.1 200 OK')}/", 5).right


def test_http_that_drips_is_ended_by_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                while not stop.wait(0.05):
                    try:
                        connection.sendall(b"H")
                    except OSError:
                        return

        thread = threading.Thread(target=drip)
        thread.start()
        begin = time.monotonic()
        answer = web.http(f"http://127.0.0.1:{listener.getsockname()[1]}/", 0.3)
        stop.set()
        thread.join(5)
    assert "no answer" in answer.text
    assert time.monotonic() - begin < 2


def test_tcp_accepts_or_not(serve: Serve) -> None:
    assert network.tcp(f"127.0.0.1:{serve(None)}", 5).right
    assert "refused" in network.tcp(f"127.0.0.1:{unused_port()}", 5).text
    assert not network.tcp("[::1]:1", 5).right


def test_command_counts_by_its_exit_code() -> None:
    assert command.succeeds("/bin/true", 5).right
    failed = command.succeeds("/bin/sh -c 'echo disk is full >&2; exit 3'", 5)
    assert (failed.right, failed.text) == (False, "/bin/sh: exit code 3: disk is full")
    assert "signal 9" in command.succeeds("/bin/sh -c 'kill -9 $$'", 5).text
    assert "No such file" in command.succeeds("/no/such/program", 5).text


def test_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"/bin/sh -c 'sleep 77 & echo $! $$ > {pids}; wait'"
    begin = time.monotonic()
    answer = command.succeeds(script, 0.3)
    assert "not done within 0.3 s" in answer.text
    assert time.monotonic() - begin < 2
    for pid in pids.read_text().split():
        while alive(int(pid)):  # it was killed, and needs a processor to die
            assert time.monotonic() - begin < 10, f"{pid} lives"


def alive(pid: int) -> bool:
    """Neither gone, nor a zombie that this machine's first process has not seen yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_command_that_floods_its_output_does_not_hang() -> None:
    assert command.succeeds("/bin/sh -c 'head -c 1000000 /dev/zero'", 10).right


def test_promise_breaks_after_failures_in_a_row() -> None:
    promise = Promise(3)
    right, wrong = Answer(True, "fine"), Answer(False, "bad")
    for answer in (wrong, wrong, right, wrong, wrong):
        promise.note(answer)
        assert not promise.broken
    assert promise.note(wrong) == "bad (3 of 3)"
    assert promise.broken


def test_promise_is_whole_after_successes_in_a_row_only() -> None:
    promise = Promise(2, successes=3)
    right, wrong = Answer(True, "fine"), Answer(False, "bad")
    assert promise.note(right) == "fine (well after 3, 1 so far)"
    for answer in (wrong, right, right):
        promise.note(answer)
        assert not promise.well
    assert promise.note(right) == "fine"
    assert promise.well
    # What flaps is broken, however often a single answer is right.
    for answer in (wrong, right, right, wrong):
        assert not promise.broken
        promise.note(answer)
    assert promise.broken


@pytest.mark.parametrize(
    ("options", "right", "text"),
    [
        ({"status": "200"}, True, "answers 200"),
        ({"status": "204"}, False, "answers 200, not 204"),
        ({"body": "two halves"}, True, "answers 200"),
        ({"body": "three"}, False, 'without "three"'),
    ],
)
def test_http_status_and_body_are_what_is_asked_for(
    serve: Serve, options: dict[str, str], right: bool, text: str
) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    port = serve(head + b"4\r\ntwo \r\n6;x=y\r\nhalves\r\n0\r\n\r\n")
    answer = web.http(f"http://127.0.0.1:{port}/", 5, **options)
    assert (answer.right, text in answer.text) == (right, True)


@pytest.fixture
def secure(tmp_path: Path) -> Iterator[int]:
    """A server with a certificate of its own for `localhost`, valid for ten days more."""
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    subject = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "10", *subject]
        + ["-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = ["openssl", "s_server", "-quiet", "-www", "-accept", f"127.0.0.1:{port}"]
    command += ["-key", str(key), "-cert", str(certificate)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        deadline = time.monotonic() + 10
        while not network.tcp(f"127.0.0.1:{port}", 1).right:
            assert time.monotonic() < deadline
        yield port
        server.kill()


def test_certificate_counts_if_it_is_asked_for(
    secure: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"https://localhost:{secure}/"
    assert web.http(url, 5).right
    assert "certificate" in web.http(url, 5, check_certificate="yes").text
    week, fortnight = str(7 * 86_400), str(14 * 86_400)
    assert web.http(url, 5, certificate_left=week).right
    short = web.http(url, 5, certificate_left=fortnight)
    assert (short.right, "ends in 10 days" in short.text) == (False, True)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate"))
    assert web.http(url, 5, check_certificate="yes", certificate_left=week).right
    assert not web.http(f"https://127.0.0.1:{secure}/", 5, check_certificate="yes").right


def test_end_of_a_certificate_is_read_as_openssl_reads_it(tmp_path: Path) -> None:
    for days in ("1", "40000"):  # as UTCTime, and from 2050 on as GeneralizedTime
        made = subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", days]
            + ["-subj", "/CN=x", "-keyout", "/dev/null", "-outform", "DER"],
            check=True,
            capture_output=True,
        ).stdout
        assert abs(web.not_after(made) - time.time() - int(days) * 86_400) < 60
        for cut in range(0, len(made), 7):
            with pytest.raises(ValueError, match="certificate"):
                web.not_after(made[:cut])
