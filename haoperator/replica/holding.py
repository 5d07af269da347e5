# SPDX-License-Identifier: Apache-2.0
"""Stands for a mount where there can be no mount unit: `mount.haoperator --hold`.

systemd has one mount unit for a path, and where the directory is a mount point itself it
is taken. The service that runs this is up exactly as long as the mount is: it ends when
somebody unmounts the directory, and unmounts it when it is stopped.
"""

from __future__ import annotations

import select
import signal
from collections.abc import Callable
from types import FrameType

from haoperator.replica._hotpath import umount2
from haoperator.replica.places import FILE_SYSTEM, MOUNTINFO, mounted_type

MNT_DETACH = 2


class Stopped(BaseException):
    """SIGTERM or SIGINT came."""


def hold(path: str, mount: Callable[[], None], ready: Callable[[], None]) -> None:
    """Mount with `mount`, unless a former holder left it mounted, and return when it is gone."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    try:
        if mounted_type(path) != FILE_SYSTEM:
            mount()
        ready()
        _wait_while_mounted(path)
    except Stopped:
        if mounted_type(path) == FILE_SYSTEM:  # never what lies below
            umount2(path.encode(errors="surrogateescape"), MNT_DETACH)


def _wait_while_mounted(path: str) -> None:
    """The kernel marks mountinfo as changed (proc(5)): nothing is polled by time."""
    with open(MOUNTINFO, "rb") as changes:
        poll = select.poll()
        poll.register(changes, select.POLLPRI | select.POLLERR)
        while mounted_type(path) == FILE_SYSTEM:
            poll.poll()


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped
