# SPDX-License-Identifier: Apache-2.0
"""Stands for a mount where there can be no mount unit: `mount.haoperator --hold`.

systemd has one mount unit for a path, and where the directory is a mount point itself it
is taken. The service that runs this is up exactly as long as the mount is: it ends when
somebody unmounts the directory, and unmounts it when it is stopped.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable

from haoperator.replica._hotpath import umount2
from haoperator.replica.places import FILE_SYSTEM, MOUNTINFO, mounted_type

MNT_DETACH = 2


def hold(path: str, mount: Callable[[], None], ready: Callable[[], None]) -> None:
    """Mount with `mount`, unless a former holder left it mounted, and return when it is gone."""
    stop = _signals()
    if mounted_type(path) != FILE_SYSTEM:
        mount()
    ready()
    _wait(path, stop)
    if mounted_type(path) == FILE_SYSTEM:  # never what lies below
        umount2(os.fsencode(path), MNT_DETACH)


def _signals() -> int:
    """A descriptor that can be read once SIGTERM or SIGINT came, whatever was under way."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writing)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    return reading


def _wait(path: str, stop: int) -> None:
    """Until it is unmounted, or to be stopped. The kernel tells of changes of mountinfo."""
    with open(MOUNTINFO, "rb") as changes:
        poll = select.poll()
        poll.register(changes, select.POLLPRI | select.POLLERR)
        poll.register(stop, select.POLLIN)
        while mounted_type(path) == FILE_SYSTEM:
            if any(fd == stop for fd, _ in poll.poll()):
                return
