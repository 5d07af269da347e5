# SPDX-License-Identifier: Apache-2.0
"""However many files there are, the primary keeps within its descriptors."""

from __future__ import annotations

import os

from tests.replica.pair import Pair
from tests.replica.trees import assert_equal_trees

OPEN_FILES = 800
FILES = 4000


def test_more_files_than_descriptors(pair: Pair) -> None:
    a, b = pair.a, pair.b
    a.settings["open_files"] = OPEN_FILES
    for number in range(FILES):
        path = a.path / f"d{number % 10}"
        path.mkdir(exist_ok=True)
        (path / f"f{number}").write_text(str(number))
    pair.replicate()
    kept = [open(a.path / f"d{n % 10}" / f"f{n}", "a") for n in range(100)]  # noqa: SIM115
    try:
        for turn in range(2):
            for number in range(FILES):
                assert (a.path / f"d{number % 10}" / f"f{number}").stat().st_size > 0
            for number in range(0, FILES, 10):
                (a.path / f"d{number % 10}" / f"f{number}").write_text(f"again {turn}")
            for file in kept:
                file.write("kept open")
                file.flush()
    finally:
        for file in kept:
            file.close()
    for number in range(FILES):
        assert (b.path / f"d{number % 10}" / f"f{number}").stat().st_size > 0
    assert a.process is not None
    assert len(os.listdir(f"/proc/{a.process.pid}/fd")) < OPEN_FILES
    assert_equal_trees(a.backing, b.backing)
