# SPDX-License-Identifier: Apache-2.0
"""Make the kernel write what it holds back, before a primary leaves in order.

A process of its own does it. Whoever waits in a mount waits for the replicator; a thread of
the replicator that waits in the kernel would keep it from ending when it is killed, and its
successor from beginning.

syncfs(2) hands everything to the replicator, but does not wait for it in a FUSE mount. To close
a file does: the kernel waits for all writes to it that are under way, then.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from haoperator.replica._hotpath import syncfs
from haoperator.replica.places import FILE_SYSTEM, mounted_type

FLUSH_SECONDS = 2.0
"""Applications have stopped by then, and to close a file has flushed it."""
LOOK_SECONDS = 0.02
MOST_REASONS = 5

log = logging.getLogger(__name__)


class Held(NamedTuple):
    """A mount, and the files below it that may be written to (paths from its root)."""

    path: str
    files: Sequence[bytes]


def flush(mounts: Sequence[Held], worth_it: Callable[[], bool]) -> bool:
    """True once the replicator has answered every write that the kernel held back before.

    Gives up after FLUSH_SECONDS, or when `worth_it` is false: then what was not synced is
    lost, whoever wrote it gets an error, and the log says so. Hold no lock.
    """
    if not mounts:
        return True
    said = b"".join(
        b"\0".join((os.fsencode(mount.path), *mount.files)) + b"\0\0" for mount in mounts
    )
    until = time.monotonic() + FLUSH_SECONDS
    child = subprocess.Popen(
        [sys.executable, "-m", "haoperator.replica.flushing"],
        env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    errors: list[bytes] = []
    talk = threading.Thread(
        target=lambda: errors.append(child.communicate(said)[1]), name="flush", daemon=True
    )
    talk.start()
    while talk.is_alive() and time.monotonic() < until and worth_it():
        talk.join(LOOK_SECONDS)
    if talk.is_alive():
        child.kill()  # it ends, and is reaped, when its writes have been refused
        paths = ", ".join(mount.path for mount in mounts)
        log.warning("%s: not all that was written and not synced could be saved in time", paths)
        return False
    for line in errors[0].decode(errors="replace").splitlines():
        log.warning("%s", line)
    return child.returncode == 0


def main() -> int:
    """The process: mounts and files on standard input, as `flush` writes them."""
    reasons: list[str] = []
    roots: list[tuple[int, list[bytes]]] = []
    for said in sys.stdin.buffer.read().split(b"\0\0")[:-1]:
        path, *files = said.split(b"\0")
        try:
            if mounted_type(os.fsdecode(path)) != FILE_SYSTEM:
                raise OSError(0, "not mounted here")
            roots.append((os.open(path, os.O_RDONLY | os.O_DIRECTORY), files))
            syncfs(roots[-1][0])
        except OSError as err:
            reasons.append(f"{os.fsdecode(path)}: {err.strerror}")
    for root, files in roots:
        for file in files:
            try:
                flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
                os.close(os.open(file, flags, dir_fd=root))
            except FileNotFoundError:  # without its name it is lost with the last who has it open
                continue
            except OSError as err:
                reasons.append(f"{os.fsdecode(file)}: not written: {err.strerror}")
    for reason in reasons[:MOST_REASONS]:
        print(reason, file=sys.stderr)
    return 1 if reasons else 0


if __name__ == "__main__":
    sys.exit(main())
