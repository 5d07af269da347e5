# SPDX-License-Identifier: Apache-2.0
"""systemd's file descriptor store: the mounts outlive the process (sd_pid_notify_with_fds(3)).

For each directory two descriptors are kept, `NAME.fuse` and `NAME.root`; and one for the
process, the table of requests in flight (inflight.py).
"""

from __future__ import annotations

import array
import os
import socket
from dataclasses import dataclass

from haoperator.replica.inflight import PREFIX

FIRST = 3
"""Where systemd puts passed descriptors (SD_LISTEN_FDS_START)."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a former process served."""

    name: str
    fuse_fd: int
    root_fd: int


@dataclass(frozen=True, slots=True)
class TakenUp:
    """What systemd passed to this process."""

    directories: tuple[Kept, ...] = ()
    tables: tuple[tuple[str, int], ...] = ()
    """Name and descriptor of each table of requests in flight."""


def keep(name: str, fuse_fd: int, root_fd: int) -> None:
    """Store both descriptors of a directory. Without systemd nothing happens."""
    _send(f"FDSTORE=1\nFDNAME={name}.fuse\nFDPOLL=0", fuse_fd)
    _send(f"FDSTORE=1\nFDNAME={name}.root\nFDPOLL=0", root_fd)


def drop(name: str) -> None:
    """The directory was unmounted."""
    _send(f"FDSTOREREMOVE=1\nFDNAME={name}.fuse")
    _send(f"FDSTOREREMOVE=1\nFDNAME={name}.root")


def keep_table(name: str, descriptor: int) -> None:
    """Store a table of requests in flight."""
    _send(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", descriptor)


def drop_table(name: str) -> None:
    """Nobody waits for what is in it."""
    _send(f"FDSTOREREMOVE=1\nFDNAME={name}")


def taken_up() -> TakenUp:
    """What a former process had stored. Incomplete directories are closed."""
    if os.environ.pop("LISTEN_PID", None) != str(os.getpid()):
        return TakenUp()
    count = int(os.environ.pop("LISTEN_FDS", "0"))
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    by_name: dict[str, int] = {}
    for descriptor, name in zip(range(FIRST, FIRST + count), names, strict=False):
        os.set_inheritable(descriptor, False)
        if name in by_name:
            os.close(by_name[name])
        by_name[name] = descriptor
    tables = [(name, by_name.pop(name)) for name in list(by_name) if name.startswith(PREFIX)]
    kept = []
    for name in [name.removesuffix(".fuse") for name in by_name if name.endswith(".fuse")]:
        fuse_fd, root_fd = by_name.pop(f"{name}.fuse"), by_name.pop(f"{name}.root", None)
        if root_fd is None:
            os.close(fuse_fd)
        else:
            kept.append(Kept(name, fuse_fd, root_fd))
    for descriptor in by_name.values():
        os.close(descriptor)
    return TakenUp(tuple(kept), tuple(tables))


def _send(message: str, descriptor: int | None = None) -> None:
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        ancillary = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
            if descriptor is not None
            else []
        )
        sock.connect(address)
        sock.sendmsg([message.encode()], ancillary)
