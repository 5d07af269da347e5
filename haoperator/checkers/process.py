# SPDX-License-Identifier: Apache-2.0
"""Does a process exist? By what proc(5) tells of all of them."""

from __future__ import annotations

import os

from haoperator.checkers.promise import Answer

_COMM_BYTES = 15
"""What the kernel keeps of a name."""

_found: dict[str, int] = {}
"""Which process it was last time; it is looked at first."""


def process(target: str, _timeout: float) -> Answer:
    """A process that runs the program of this path, or is called so; a zombie is none."""
    is_it = _runs if target.startswith("/") else _is_called
    last = _found.pop(target, 0)
    for pid in (last, *(int(name) for name in os.listdir("/proc") if name.isdigit())):
        if pid not in (0, os.getpid()) and is_it(pid, target):
            _found[target] = pid
            return Answer(True, f"{target} runs")
    return Answer(False, f"{target} does not run")


def _runs(pid: int, program: str) -> bool:
    try:
        # A program that was replaced by an upgrade runs on.
        return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)") == program
    except OSError:
        return False


def _is_called(pid: int, name: str) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            _, _, rest = file.read().partition(b"(")
        comm, _, state = rest.rpartition(b") ")
        wanted = name.encode()
        if comm != wanted[:_COMM_BYTES] or state[:1] in (b"Z", b"X"):
            return False
        if len(wanted) <= _COMM_BYTES:
            return True
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().split(b"\0")[0].rpartition(b"/")[2] == wanted
    except OSError:
        return False
