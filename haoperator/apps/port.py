# SPDX-License-Identifier: Apache-2.0
"""A TCP port by which an application shows that it is ready."""

from __future__ import annotations

import socket

CONNECT_SECONDS = 1.0


def answers(target: str) -> bool:
    """Whether `HOST:PORT` accepts a connection."""
    host, _, number = target.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(number)), CONNECT_SECONDS).close()
    except OSError:
        return False
    return True
