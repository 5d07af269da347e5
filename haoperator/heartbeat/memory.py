# SPDX-License-Identifier: Apache-2.0
"""Keeping the process in memory, so that a beat never waits for a disk."""

from __future__ import annotations

import ctypes
import gc
import logging
import os

log = logging.getLogger(__name__)

_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4


def lock() -> None:
    """Pin every page from the moment it is touched (mlockall(2)). Failure is only logged.

    ONFAULT: what is never touched is not brought in, so locking costs no memory.
    """
    gc.collect()
    gc.freeze()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) != 0:
        reason = os.strerror(ctypes.get_errno())
        log.warning("memory not locked: %s; under memory pressure a beat may be late", reason)
