# SPDX-License-Identifier: Apache-2.0
"""A client that asks for an address without end: `prober.py INTERFACE ADDRESS`.

Every `PERIOD` it broadcasts an ARP request and sends one echo request (a ping) to whoever
answered that, by raw frames: no neighbour table remembers the former owner, and nothing
has to expire. Every echo reply is a line on standard output:

    TIME MAC      seconds of CLOCK_MONOTONIC, and which node answered

It runs before all that is not real-time, so that a busy machine does not make it late.
Standard library only; it is a program of its own in the client's network.
"""

from __future__ import annotations

import fcntl
import os
import select
import socket
import struct
import sys
import time

PERIOD = 0.002
"""Seconds: how finely it measures."""
PRIORITY = 50

ARP, IPV4 = 0x0806, 0x0800
BROADCAST = b"\xff" * 6
ECHO, ECHO_REPLY = 8, 0


class Client:
    """The raw side of one interface."""

    def __init__(self, interface: str, wanted: str) -> None:
        self.wanted = socket.inet_aton(wanted)
        self.arp = opened(interface, ARP)
        self.ip = opened(interface, IPV4)
        self.mac = self.arp.getsockname()[4]
        self.own = address_of(interface)
        self.identifier = os.getpid() & 0xFFFF
        self.number = 0

    def ask_who(self) -> None:
        """Broadcasts an ARP request (RFC 826)."""
        head = struct.pack("!HHBBH", 1, IPV4, 6, 4, 1)
        question = head + self.mac + self.own + bytes(6) + self.wanted
        self.arp.send(BROADCAST + self.mac + ARP.to_bytes(2, "big") + question)

    def owners(self) -> list[bytes]:
        """Hardware addresses of those who have answered since the last call."""
        found = []
        for frame in waiting(self.arp):
            operation, mac, sender = struct.unpack_from("!H6s4s", frame, 20)
            if operation == 2 and sender == self.wanted and frame[:6] == self.mac:
                found.append(mac)
        return found

    def ping(self, mac: bytes) -> None:
        """One echo request (RFC 792) to that neighbour."""
        self.number = (self.number + 1) & 0xFFFF
        echo = struct.pack("!BBHHH", ECHO, 0, 0, self.identifier, self.number)
        echo = echo[:2] + checksum(echo) + echo[4:]
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(echo), 0, 0, 64, socket.IPPROTO_ICMP, 0)
        head += self.own + self.wanted
        head = head[:10] + checksum(head) + head[12:]
        self.ip.send(mac + self.mac + IPV4.to_bytes(2, "big") + head + echo)

    def answers(self) -> list[bytes]:
        """Hardware addresses of those whose echo replies came since the last call."""
        found = []
        for frame in waiting(self.ip):
            packet = frame[14:]
            body = packet[(packet[0] & 0x0F) * 4 :]
            if packet[9] != socket.IPPROTO_ICMP or packet[12:16] != self.wanted or len(body) < 8:
                continue
            kind, _, _, identifier, _ = struct.unpack_from("!BBHHH", body)
            if (kind, identifier) == (ECHO_REPLY, self.identifier):
                found.append(frame[6:12])
        return found

    def run(self) -> None:
        """Asks, and tells of every answer, until standard output is closed."""
        due = time.monotonic()
        while True:
            pause = due - time.monotonic()
            if pause <= 0:
                self.ask_who()
                due = max(due + PERIOD, time.monotonic())
                continue
            select.select([self.arp, self.ip], [], [], pause)
            for mac in self.owners():
                self.ping(mac)
            for mac in self.answers():
                print(f"{time.monotonic():.6f} {mac.hex(':')}", flush=True)


def opened(interface: str, protocol: int) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
    sock.bind((interface, protocol))
    sock.setblocking(False)
    return sock


def waiting(sock: socket.socket) -> list[bytes]:
    """All frames that have come."""
    frames = []
    while True:
        try:
            frames.append(sock.recv(2048))
        except BlockingIOError:
            return frames


def address_of(interface: str) -> bytes:
    """The IPv4 address of an interface, in network byte order: netdevice(7)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("256s", interface.encode())
        return fcntl.ioctl(sock, 0x8915, request)[20:24]  # SIOCGIFADDR


def checksum(data: bytes) -> bytes:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")


if __name__ == "__main__":
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    Client(*sys.argv[1:]).run()
