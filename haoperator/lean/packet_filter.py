# SPDX-License-Identifier: Apache-2.0
"""Letting the kernel drop what a packet socket has no use for, so that it wakes nobody."""

from __future__ import annotations

import array
import socket
import struct
from collections.abc import Iterable

_SO_ATTACH_FILTER = 26
_INSTRUCTION = struct.Struct("=HBBI")
_LOAD = {1: 0x30, 2: 0x28, 4: 0x20}  # BPF_LD | BPF_ABS, by size
_JUMP_IF_EQUAL, _RETURN = 0x15, 0x06
_ALL = 0xFFFF


def attach(sock: socket.socket, fields: Iterable[tuple[int, bytes]]) -> None:
    """Only packets that have these bytes at these offsets arrive from now on.

    What came before stays: attach it before the socket is bound.
    """
    program = _program([part for field in fields for part in _parts(*field)])
    code = array.array("B", program)
    fprog = struct.pack("@HP", len(program) // _INSTRUCTION.size, code.buffer_info()[0])
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)


def _program(parts: list[tuple[int, bytes]]) -> bytes:
    """Classic BPF (packet(7)). A load beyond the end of a packet drops it."""
    program = b""
    for number, (offset, value) in enumerate(parts):
        to_drop = 2 * (len(parts) - number) - 1
        program += _INSTRUCTION.pack(_LOAD[len(value)], 0, 0, offset)
        program += _INSTRUCTION.pack(_JUMP_IF_EQUAL, 0, to_drop, int.from_bytes(value, "big"))
    return program + _INSTRUCTION.pack(_RETURN, 0, 0, _ALL) + _INSTRUCTION.pack(_RETURN, 0, 0, 0)


def _parts(offset: int, value: bytes) -> list[tuple[int, bytes]]:
    """Pieces of the sizes that one instruction compares."""
    parts = []
    while value:
        size = 4 if len(value) >= 4 else 2 if len(value) >= 2 else 1
        parts.append((offset, value[:size]))
        offset, value = offset + size, value[size:]
    return parts
