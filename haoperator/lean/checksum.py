# SPDX-License-Identifier: Apache-2.0
"""The Internet checksum."""

from __future__ import annotations

import struct


def checksum(data: bytes) -> int:
    """RFC 1071. Over data that contains its own checksum it is 0."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
