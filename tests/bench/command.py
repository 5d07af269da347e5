# SPDX-License-Identifier: Apache-2.0
"""Commands of the benchmarks: none of them can hang for ever."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.replica.pair import abort_all

STUCK_SECONDS = 90.0


def run(*command: str | Path, user: str | None = None, limit: float = STUCK_SECONDS) -> str:
    """Run a command, as `user` if one is named, and return what it printed.

    One that is stuck in a mount whose server does not answer cannot be killed, so the
    mounts are aborted first, and it fails by itself. Raises CalledProcessError.
    """
    as_user = ("runuser", "-u", user, "--") if user else ()
    stuck = threading.Timer(limit, abort_all)
    stuck.start()
    try:
        done = subprocess.run(
            (*as_user, *command),
            check=True,
            timeout=limit + 10,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd="/",
        )
    except subprocess.CalledProcessError as err:
        err.add_note(err.stderr)
        raise
    finally:
        stuck.cancel()
    return done.stdout


@contextlib.contextmanager
def mounted(point: Path, *command: str | Path) -> Iterator[None]:
    """`command` mounts something on `point`; it is gone at the end of the block."""
    run(*command)
    try:
        yield
    finally:
        while os.path.ismount(point):
            try:
                run("umount", point)
            except subprocess.CalledProcessError:  # a process may be about to let go
                run("umount", "--lazy", point)
