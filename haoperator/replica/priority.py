# SPDX-License-Identifier: Apache-2.0
"""Who goes first where processors are scarce."""

from __future__ import annotations

import os
import threading

NICE = 10
"""Of threads that read and hash for the other side: whoever serves an application wakes first.
Not more, because they hold the interpreter's lock now and then."""


def be_nice() -> None:
    """Make the calling thread give way to all others of the machine."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
