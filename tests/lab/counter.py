# SPDX-License-Identifier: Apache-2.0
"""A client that counts: increments keys through the virtual IP and remembers every answer.

It runs in the client's network as a program of its own, with nothing but the
standard library, and speaks Redis' protocol on a plain socket. Beside that it
listens for ARP, which is how anybody on a network learns that an address moved.

What it learns is written to a file, one line an event, times in seconds of the
real-time clock:

    ack TIME KEY VALUE      an increment was acknowledged
    lost TIME KEY COUNT     the answer is lower than one that was acknowledged before
    up TIME / down TIME WHY connected, disconnected
    vip TIME MAC            a node said that it has the virtual IP

Orders come on standard input, a line each: `pause`, `resume`, `quit`. Each is
answered on standard output when it has been carried out.
"""

from __future__ import annotations

import argparse
import json
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TextIO

CONNECT_SECONDS = 0.1
"""A server on the same segment answers in less than a millisecond, or does not."""
ANSWER_SECONDS = 0.5
RETRY_SECONDS = 0.005
ETH_P_ARP = 0x0806


class Log:
    """The file of events; lines of several threads do not mix."""

    def __init__(self, path: str) -> None:
        self.file: TextIO = open(path, "w", buffering=1 << 16)  # noqa: SIM115
        self.lock = threading.Lock()

    def write(self, *words: object) -> None:
        with self.lock:
            self.file.write(" ".join(str(w) for w in words) + "\n")

    def flush(self) -> None:
        with self.lock:
            self.file.flush()


def listen_for(address: str, log: Log) -> None:
    """Logs every ARP frame whose sender claims `address`."""
    wanted = socket.inet_aton(address)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ARP)) as wire:
        while True:
            frame = wire.recv(128)
            mac, sender = struct.unpack_from("!6s4s", frame, 22)
            if sender == wanted:
                log.write("vip", f"{time.time():.6f}", mac.hex(":"))
                log.flush()


class Orders:
    """Orders from standard input, looked at between two increments."""

    def __init__(self) -> None:
        self.paused = False
        self.ended = False

    def take(self, wait: float) -> str | None:
        """The next order, if one comes within `wait` seconds."""
        readable, _, _ = select.select([sys.stdin], [], [], wait)
        if not readable:
            return None
        line = sys.stdin.readline()
        word = line.strip() if line else "quit"
        self.paused = {"pause": True, "resume": False}.get(word, self.paused)
        self.ended = word == "quit"
        return word


class Client:
    """One connection at a time, and what was acknowledged for each key."""

    def __init__(self, address: tuple[str, int], keys: int, log: Log) -> None:
        self.address = address
        self.keys = [f"count:{i}" for i in range(keys)]
        self.acknowledged = dict.fromkeys(self.keys, 0)
        self.acks = 0
        self.lost = 0
        self.log = log
        self.socket: socket.socket | None = None

    def increment(self, key: str) -> None:
        """One INCR. An error of the connection is an answer too: none was given."""
        try:
            connection = self.socket or self.connect()
            connection.sendall(f"INCR {key}\r\n".encode())
            answer = connection.recv(256)
            if not answer.endswith(b"\r\n"):
                raise ConnectionError("closed by the server")
            if not answer.startswith(b":"):
                raise ConnectionError(answer.decode(errors="replace").strip())
        except OSError as err:
            self.disconnect(err)
            return
        self.learn(key, int(answer[1:]))

    def learn(self, key: str, value: int) -> None:
        """An answer: it must be above all that was acknowledged before."""
        now = f"{time.time():.6f}"
        missing = self.acknowledged[key] + 1 - value
        if missing > 0:
            self.lost += missing
            self.log.write("lost", now, key, missing)
        self.acknowledged[key] = value
        self.acks += 1
        self.log.write("ack", now, key, value)

    def connect(self) -> socket.socket:
        self.socket = socket.create_connection(self.address, CONNECT_SECONDS)
        self.socket.settimeout(ANSWER_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.log.write("up", f"{time.time():.6f}")
        return self.socket

    def disconnect(self, why: Exception) -> None:
        if self.socket:
            self.log.write("down", f"{time.time():.6f}", f"{type(why).__name__}: {why}")
            self.socket.close()
            self.socket = None
        time.sleep(RETRY_SECONDS)

    def report(self) -> dict[str, object]:
        return {"acks": self.acks, "lost": self.lost, "values": self.acknowledged}


def turns(keys: list[str]) -> Iterator[str]:
    while True:
        yield from keys


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("address")
    p.add_argument("port", type=int)
    p.add_argument("log")
    p.add_argument("--keys", type=int, default=8)
    p.add_argument("--rate", type=float, default=250.0, help="increments a second, at most")
    args = p.parse_args()

    log = Log(args.log)
    threading.Thread(target=listen_for, args=(args.address, log), daemon=True).start()
    client = Client((args.address, args.port), args.keys, log)
    orders = Orders()
    keys = turns(client.keys)
    due = flushed = time.monotonic()
    while not orders.ended:
        now = time.monotonic()
        if word := orders.take(5.0 if orders.paused else max(0.0, due - now)):
            log.flush()
            with suppress(BrokenPipeError):
                print(json.dumps({"order": word} | client.report()), flush=True)
        elif not orders.paused:
            client.increment(next(keys))
            # A client that was held up does not catch up in a burst.
            due = max(due + 1 / args.rate, time.monotonic() - 1 / args.rate)
        if now - flushed > 0.02:
            log.flush()
            flushed = now
    log.flush()


if __name__ == "__main__":
    main()
