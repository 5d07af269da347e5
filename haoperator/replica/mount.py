# SPDX-License-Identifier: Apache-2.0
"""`/sbin/mount.haoperator`: mount a replicated directory over itself (mount(8) helper).

    mount.haoperator [--hold] NAME DIRECTORY [-sfnvN] [-o OPTIONS]

The directory is opened first, then covered; both descriptors go to the replicator,
which needs no privilege to mount and stays in whatever sandbox its unit has.
"""

from __future__ import annotations

import array
import contextlib
import functools
import getopt
import json
import os
import socket
import stat
import sys
from pathlib import Path

from haoperator.replica._hotpath import mount, umount2
from haoperator.replica.holding import MNT_DETACH, hold
from haoperator.replica.places import FILE_SYSTEM, mounts, objection
from haoperator.systemd import notify

SOCKET = Path("/run/haoperator/replicator.sock")
ANSWER_SECONDS = 30.0

_FLAGS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8}
_MS_NOATIME = 1024
"""Said of every mount: reads come from the page cache, nobody counts them."""


class MountError(Exception):
    """The directory is not mounted; the message says why."""


def mount_over(name: str, path: str, options: str = "") -> tuple[int, int]:
    """Mount FUSE over `path`. Returns (/dev/fuse, the directory below). Raises MountError."""
    path = os.path.realpath(path)
    if problem := objection(path, mounts()):
        raise MountError(problem)
    flags = _MS_NOATIME | sum(_FLAGS.get(option, 0) for option in options.split(","))
    try:
        root_fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as err:
        *_, above, volume, last = ("", "", *path.split("/"))
        made_by = (
            f"; docker volume create {volume}" if (above, last) == ("volumes", "_data") else ""
        )
        raise MountError(f"{path} does not exist{made_by}") from err
    except OSError as err:
        raise MountError(f"{path}: {err.strerror}") from err
    fuse_fd = -1
    try:
        fuse_fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        rootmode = stat.S_IFMT(os.fstat(root_fd).st_mode)
        data = (
            f"fd={fuse_fd},rootmode={rootmode:o},user_id=0,group_id=0,"
            "allow_other,default_permissions"
        )
        mount(os.fsencode(name), os.fsencode(path), FILE_SYSTEM.encode(), flags, data.encode())
    except OSError as err:
        os.close(root_fd)
        if fuse_fd >= 0:
            os.close(fuse_fd)
        raise MountError(f"{path}: cannot mount FUSE: {err.strerror}") from err
    return fuse_fd, root_fd


def hand_over(address: Path, name: str, path: str, fuse_fd: int, root_fd: int) -> None:
    """Give the mount to the replicator. Raises MountError with its answer if it refuses."""
    header = json.dumps({"name": name, "path": path}).encode() + b"\n"
    rights = array.array("i", [fuse_fd, root_fd])
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(ANSWER_SECONDS)
        try:
            sock.connect(str(address))
            sock.sendmsg([header], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            answer = sock.makefile("r", encoding="utf-8").readline().strip()
        except OSError as err:
            raise MountError(f"ha-replicator.service does not answer: {err}") from err
    if answer != "ok":
        raise MountError(answer or "ha-replicator.service gave up")


def mount_and_hand_over(name: str, path: str, options: str, address: Path = SOCKET) -> None:
    """The whole of it; leaves nothing mounted when it raises MountError."""
    path = os.path.realpath(path)
    fuse_fd, root_fd = mount_over(name, path, options)
    try:
        hand_over(address, name, path, fuse_fd, root_fd)
    except MountError:
        with contextlib.suppress(OSError):
            umount2(os.fsencode(path), MNT_DETACH)
        raise
    finally:
        os.close(fuse_fd)
        os.close(root_fd)


def main() -> int:
    try:
        options, operands = getopt.gnu_getopt(sys.argv[1:], "sfnvN:t:o:", ["hold"])
    except getopt.GetoptError as err:
        print(f"mount.haoperator: {err}", file=sys.stderr)
        return 1
    if len(operands) != 2:
        print("usage: mount.haoperator [--hold] NAME DIRECTORY [-o OPTIONS]", file=sys.stderr)
        return 1
    chosen = dict(options)
    if "-f" in chosen:
        return 0
    name, path = operands[0], os.path.realpath(operands[1])
    mounting = functools.partial(mount_and_hand_over, name, path, chosen.get("-o", ""))
    try:
        if "--hold" in chosen:
            hold(path, mounting, notify.ready)
        else:
            mounting()
    except MountError as err:
        print(f"mount.haoperator: {err}", file=sys.stderr)
        return 32
    return 0


if __name__ == "__main__":
    sys.exit(main())
