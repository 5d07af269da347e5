# SPDX-License-Identifier: Apache-2.0
"""Waiting for a condition with a deadline; nothing in the lab sleeps for luck."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from .command import LabError

T = TypeVar("T")


def until(
    condition: Callable[[], T],
    what: str,
    *,
    within: float,
    every: float = 0.05,
    hint: str | Callable[[], str] = "",
) -> T:
    """Calls `condition` until it returns something true, and returns that.

    Raises LabError when `within` seconds have passed; `hint` may be a function
    that is called only then, to say how things stand.
    """
    deadline = time.monotonic() + within
    while True:
        if result := condition():
            return result
        if time.monotonic() >= deadline:
            told = hint() if callable(hint) else hint
            raise LabError(f"{what}: not within {within:g} s", told)
        time.sleep(every)
