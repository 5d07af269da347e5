# SPDX-License-Identifier: Apache-2.0
"""Running a command of the machine, with an error that says what it said."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path


class LabError(Exception):
    """The lab could not do something. The hint says what to look at."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message}\n  look at: {hint}" if hint else message)
        self.message = message
        self.hint = hint


def clean_environment() -> dict[str, str]:
    """What a login on a fresh Debian would have; nothing of the caller leaks into the lab."""
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "HOME": "/root",
        "TERM": os.environ.get("TERM", "dumb"),
        "DEBIAN_FRONTEND": "noninteractive",
    }


def run(
    *argv: str | Path,
    stdin: str | None = None,
    timeout: float = 60.0,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs `argv` without a terminal and returns what it printed.

    Raises LabError if it cannot be started, outlives `timeout` seconds, or, with
    `check`, exits with another status than 0.
    """
    shown = shlex.join(str(a) for a in argv)
    try:
        done = subprocess.run(
            [str(a) for a in argv],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            env=clean_environment() if env is None else dict(env),
            cwd=cwd,
        )
    except OSError as err:
        raise LabError(f"cannot run {shown}: {err}") from err
    except subprocess.TimeoutExpired as err:
        raise LabError(f"{shown} was still running after {timeout:.0f} s") from err
    if check and done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise LabError(f"{shown} exited with status {done.returncode}: {said}")
    return done
