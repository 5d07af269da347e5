# SPDX-License-Identifier: Apache-2.0
"""What the kernel says of a FUSE mount, without asking its server."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.replica.pair import Node, wait_for

CONTROL = Path("/sys/fs/fuse/connections")


def waiting(node: Node) -> int:
    """How many requests of the node's first mount have no answer yet."""
    if not os.path.ismount(CONTROL):
        subprocess.run(["mount", "-t", "fusectl", "none", CONTROL], check=True)
    with open("/proc/self/mountinfo", encoding="utf-8") as lines:
        for fields in map(str.split, lines):
            if fields[4] == str(node.path):
                minor = fields[2].partition(":")[2]
                return int((CONTROL / minor / "waiting").read_text())
    raise AssertionError(f"{node.path} is not mounted")


def nobody_waits(node: Node) -> None:
    """No request hangs: all of them were answered, soon."""
    wait_for(lambda: waiting(node) == 0, "all requests were answered")
