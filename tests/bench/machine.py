# SPDX-License-Identifier: Apache-2.0
"""What the machine of a measurement is, for those who read it elsewhere."""

from __future__ import annotations

import platform
import re
from pathlib import Path


def processor() -> str:
    """What the machine calls its processors."""
    said = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    found = re.search(r"^model name\s*:\s*(.+)$", said, re.MULTILINE)
    return found[1] if found else platform.machine()


def kernel() -> str:
    """The version of Linux, as far as it matters."""
    return ".".join(platform.release().split(".")[:2])
