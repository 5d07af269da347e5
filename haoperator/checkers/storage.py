# SPDX-License-Identifier: Apache-2.0
"""Has a file system room, and is a directory mounted?

A file system that hangs, hangs the checker with it: systemd's watchdog ends that.
"""

from __future__ import annotations

import os

from haoperator.checkers.promise import Answer

_LEAST_INODES = 0.01
"""The share that must be free where room is asked for as a size."""


def disk(target: str, _timeout: float, *, free: str) -> Answer:
    """At least `free`, a percentage or bytes, of what processes without privileges may use."""
    try:
        found = os.statvfs(target)
    except OSError as err:
        return Answer(False, f"{target}: {err.strerror}")
    room = found.f_bavail * found.f_frsize
    usable = (found.f_blocks - found.f_bfree + found.f_bavail) * found.f_frsize
    share = float(free[:-1]) / 100 if free.endswith("%") else None
    least = int(free) if share is None else share * usable
    if room < least:
        wanted = free if share is not None else f"{least / 1e6:.0f} MB"
        left = f"{room / usable:.0%}" if share is not None and usable else f"{room / 1e6:.0f} MB"
        return Answer(False, f"{target}: {left} free, less than {wanted}")
    # Some file systems make inodes as they are needed, and tell of none.
    if found.f_files and found.f_favail < (share or _LEAST_INODES) * found.f_files:
        left = f"{found.f_favail / found.f_files:.0%}"
        return Answer(False, f"{target}: {left} of the inodes free, too few")
    return Answer(True, f"{target} has room")


def mount(target: str, _timeout: float) -> Answer:
    """Something is mounted there, and answers."""
    with open("/proc/self/mountinfo", "rb") as file:
        points = {_unescaped(line.split(b" ")[4]) for line in file}
    if target.encode() not in points:
        return Answer(False, f"{target} is not mounted")
    try:
        os.statvfs(target)
    except OSError as err:
        return Answer(False, f"{target}: {err.strerror}")
    return Answer(True, f"{target} is mounted")


def _unescaped(path: bytes) -> bytes:
    """proc(5): blanks and the like are three octal digits behind a backslash."""
    first, *rest = path.split(b"\\")
    return first + b"".join(bytes((int(part[:3], 8),)) + part[3:] for part in rest)
