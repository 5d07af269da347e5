# SPDX-License-Identifier: Apache-2.0
"""What carries out one change of names or attributes, and what it gives back.

A handler runs under the namespace mutex, carries out the change on the backing file
system and returns the frame that makes the peer do the same, with the answer for the
caller, which the peer's acknowledgement releases. A handler that raises has changed
nothing, and nothing is sent. A frame of None: the peer need not know.

Frames carry results (modes, owners, times of the changed inode and of its parent), not
requests, so that the peer ends up with the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from haoperator.replica import abi, frames

if TYPE_CHECKING:
    from haoperator.replica.directory import Directory
    from haoperator.replica.nodes import Node

Change = tuple[int, frames.Frame | None, bytes]
"""Node id (0: none), frame, answer."""
Handler = Callable[["Directory", abi.Header, bytes], Change]


def resent(header: abi.Header) -> bool:
    """A former process began with it and did not say what became of it."""
    return bool(header.unique & abi.RESENT)


def parent_mtime(parent: Node) -> int:
    return os.fstat(parent.fd).st_mtime_ns
