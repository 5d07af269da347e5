# SPDX-License-Identifier: Apache-2.0
"""The shipped core against random faults: never two writers, nothing lost, it settles."""

from __future__ import annotations

import pytest

from tests.core.simulator import life

LIVES = 60
TIMES = 4


@pytest.mark.parametrize("block", range(8))
def test_random_faults_never_make_two_writers_nor_lose_a_write(block: int) -> None:
    for seed in range(block * LIVES, (block + 1) * LIVES):
        life(seed, TIMES)
