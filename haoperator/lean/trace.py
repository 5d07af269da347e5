# SPDX-License-Identifier: Apache-2.0
"""What a unit has started, written down in /run until it is gone.

A trace is left before the thing is started and removed after it is gone, so that
`ExecStopPost=` finds it whatever killed the process, and even when the
configuration has changed in between.
"""

from __future__ import annotations

import contextlib
import os

RUN = "/run/haoperator"


def leave(kind: str, name: str, fields: list[str]) -> None:
    """Replaces an older trace. Raises OSError if /run cannot be written."""
    os.makedirs(f"{RUN}/{kind}", mode=0o755, exist_ok=True)
    temporary = f"{RUN}/{kind}/.{name}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write("\n".join(fields))
    os.rename(temporary, f"{RUN}/{kind}/{name}")


def find(kind: str, name: str) -> list[str] | None:
    """The fields that were left, None if there is nothing."""
    try:
        with open(f"{RUN}/{kind}/{name}", encoding="utf-8") as file:
            return file.read().split("\n")
    except FileNotFoundError:
        return None


def remove(kind: str, name: str) -> None:
    """Nothing is left of it."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{RUN}/{kind}/{name}")


def ended_in_order() -> bool:
    """In `ExecStopPost=`: the main process cleaned up itself, and said so by exit code 0."""
    return os.environ.get("EXIT_CODE") == "exited" and os.environ.get("EXIT_STATUS") == "0"
