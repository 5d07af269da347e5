# SPDX-License-Identifier: Apache-2.0
"""Adds numbers to a set behind the virtual IP, and reads the greatest, until its input ends.

    sequence_client.py redis|postgresql ADDRESS LOG

It runs in the client's network with nothing but the standard library, and psql. One
thread adds, one reads; each answer is a line of the log (sequence.py reads them), with
CLOCK_MONOTONIC. An addition is written down before it is begun too, as one that never
ended: its answer may get lost together with this process.
"""

from __future__ import annotations

import argparse
import select
import socket
import subprocess
import sys
import threading
import time
from typing import Protocol, TextIO

ANSWER_SECONDS = 2.0
RETRY_SECONDS = 0.05
PAUSE = 0.02
stopping = threading.Event()


class Failed(Exception):
    """No answer, or an error: whether it was done is not known."""


class Connection(Protocol):
    """One connection, made when it is needed, gone after a failure."""

    def add(self, number: int) -> None:
        """Raises Failed."""

    def read(self) -> int:
        """The greatest number, 0 if there is none. Raises Failed."""

    def close(self) -> None: ...


class Redis:
    """A sorted set; the server fsyncs what it answers (appendfsync always)."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket: socket.socket | None = None

    def add(self, number: int) -> None:
        if (answer := self.ask(f"ZADD sequence {number} {number}")) != [":1"]:
            raise Failed(answer)

    def read(self) -> int:
        match self.ask("ZRANGE sequence -1 -1"):
            case ["*0"]:
                return 0
            case ["*1", _, number]:
                return int(number)
            case answer:
                raise Failed(answer)

    def ask(self, command: str) -> list[str]:
        try:
            if self.socket is None:
                self.socket = socket.create_connection((self.address, 6379), 0.2)
                self.socket.settimeout(ANSWER_SECONDS)
            self.socket.sendall(f"{command}\r\n".encode())
            answer = b""
            while not (answer.endswith(b"\r\n") and whole(answer)):
                if not (more := self.socket.recv(4096)):
                    raise Failed("closed by the server")
                answer += more
            return answer.decode().split("\r\n")[:-1]
        except OSError as err:
            raise Failed(err) from err

    def close(self) -> None:
        if self.socket:
            self.socket.close()
        self.socket = None


def whole(answer: bytes) -> bool:
    """Whether all lines of an answer are there: an array of one element has three."""
    return not answer.startswith(b"*1") or answer.count(b"\r\n") == 3


class Postgresql:
    """A table, through one psql that lives as long as its connection."""

    def __init__(self, address: str) -> None:
        self.address = f"host={address} user=postgres connect_timeout=2 options='-c lock_timeout=0'"
        self.psql: subprocess.Popen[str] | None = None

    def add(self, number: int) -> None:
        if self.ask(f"insert into sequence values ({number}) returning number;") != [str(number)]:
            raise Failed("no row")

    def read(self) -> int:
        match self.ask("select coalesce(max(number), 0) from sequence;"):
            case [number] if number.isdigit():
                return int(number)
            case answer:
                raise Failed(answer)

    def ask(self, statement: str) -> list[str]:
        if self.psql is None:
            self.psql = subprocess.Popen(
                ["psql", "-X", "-q", "-t", "-A", self.address],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                bufsize=1,
            )
        assert self.psql.stdin and self.psql.stdout
        lines: list[str] = []
        try:
            self.psql.stdin.write(f"{statement}\n\\echo .\n")
            while True:
                if not select.select([self.psql.stdout], [], [], ANSWER_SECONDS)[0]:
                    raise Failed("no answer")
                # Both lines of an answer may come at once: whatever is buffered is read first.
                if not (line := self.psql.stdout.readline()):
                    raise Failed("psql has ended")
                if line == ".\n":
                    return lines
                lines.append(line.rstrip("\n"))
                if len(lines) == 1 and lines[0].isdigit():
                    self.psql.stdout.readline()
                    return lines
        except OSError as err:
            raise Failed(err) from err

    def close(self) -> None:
        if self.psql:
            self.psql.kill()
            self.psql.wait()
        self.psql = None


KINDS: dict[str, type[Redis] | type[Postgresql]] = {"redis": Redis, "postgresql": Postgresql}


class Log:
    """Lines of two threads do not mix; each is in the file when `write` returns."""

    def __init__(self, file: TextIO) -> None:
        self.file = file
        self.lock = threading.Lock()

    def write(self, kind: str, begin: float, end: float, number: int) -> None:
        with self.lock:
            self.file.write(f"{kind} {begin:.6f} {end:.6f} {number}\n")
            self.file.flush()


def add_for_ever(connection: Connection, log: Log) -> None:
    number = 0
    while not stopping.wait(PAUSE):
        number += 1
        begin = time.monotonic()
        log.write("add", begin, float("inf"), number)
        try:
            connection.add(number)
            log.write("add", begin, time.monotonic(), number)
        except Failed:
            connection.close()
            stopping.wait(RETRY_SECONDS)
    connection.close()


def read_for_ever(connection: Connection, log: Log) -> None:
    while not stopping.wait(PAUSE):
        begin = time.monotonic()
        try:
            number = connection.read()
            log.write("read", begin, time.monotonic(), number)
        except Failed:
            connection.close()
            stopping.wait(RETRY_SECONDS)
    connection.close()


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("kind", choices=KINDS)
    p.add_argument("address")
    p.add_argument("log")
    args = p.parse_args()
    connect = KINDS[args.kind]
    with open(args.log, "w") as file:
        log = Log(file)
        threads = [
            threading.Thread(target=work, args=(connect(args.address), log))
            for work in (add_for_ever, read_for_ever)
        ]
        for thread in threads:
            thread.start()
        sys.stdin.read()
        stopping.set()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()
