# SPDX-License-Identifier: Apache-2.0
"""What the process may use: every node that the kernel knows costs one descriptor."""

from __future__ import annotations

import resource


def raise_limits() -> None:
    """As many open files as the unit allows (`LimitNOFILE=`)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
