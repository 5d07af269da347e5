# SPDX-License-Identifier: Apache-2.0
"""The neighbour entries of a container that has just been started.

Docker publishes a port before the container's interface is up. A client that is
waiting for the application sends its packet at once; the kernel asks for the
container's address in vain and asks again only a second later (arp(7),
`retrans_time_ms`). Measured here: 0.9 s of the time that a takeover took.
"""

from __future__ import annotations

import subprocess
from typing import Any

_SECONDS = 2.0


def forget_unanswered(container: Any) -> None:
    """Let the next packet to `container` ask for its address anew. Never fails: without
    this, the application answers a second later."""
    networks = container.attrs.get("NetworkSettings", {}).get("Networks") or {}
    for network in networks.values():
        for address in (network.get("IPAddress"), network.get("GlobalIPv6Address")):
            if address:
                _flush(address)


def _flush(address: str) -> None:
    for state in ("incomplete", "failed"):
        try:
            subprocess.run(
                ["ip", "neigh", "flush", "to", address, "nud", state],
                capture_output=True,
                timeout=_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return
