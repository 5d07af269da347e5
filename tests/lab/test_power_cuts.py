# SPDX-License-Identifier: Apache-2.0
"""The power goes, and with it what had not reached the disk: nothing that fsync promised."""

from __future__ import annotations

from pathlib import Path

import pytest

from .cluster import Pair
from .customer import Customer
from .power import Cuts
from .power_plan import Kind, Plan

SEED = "CI"


@pytest.mark.parametrize("kind", list(Kind), ids=str)
def test_power_cut_loses_nothing_that_fsync_promised(
    pair: Pair, client: Customer, directory: Path, kind: Kind
) -> None:
    """One cut of each kind; `make soak-power` draws them at random."""
    cuts = Cuts(pair, client, directory)
    try:
        print(cuts.cut(Plan.of(SEED, list(Kind).index(kind), kind)))
    finally:
        cuts.close()
