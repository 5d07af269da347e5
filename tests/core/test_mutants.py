# SPDX-License-Identifier: Apache-2.0
"""A sample of the mutation run; `make mutants` is the whole one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.core.mutants import EQUIVALENT, mutants

SAMPLE = 15


def test_negated_guards_of_the_core_do_not_go_unnoticed() -> None:
    """In another process: the core must not be loaded yet in the one that the mutants leave."""
    seed = os.environ.get("HAOPERATOR_SEED", "1")
    run = subprocess.run(
        [sys.executable, "-m", "tests.core.mutants", "--sample", str(SAMPLE), "--seed", seed],
        capture_output=True,
        text=True,
        check=False,
    )
    print(run.stdout)
    if run.returncode:
        pytest.fail(f"HAOPERATOR_SEED={seed} shows it again:\n{run.stdout}{run.stderr}")


def test_what_no_test_can_see_is_still_there() -> None:
    known = {(mutant.function, mutant.guard) for mutant in mutants()}
    assert EQUIVALENT.keys() <= known
