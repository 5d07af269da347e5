# SPDX-License-Identifier: Apache-2.0
"""Random operations with write caches: a plain tree, the primary and the standby are equal."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.replica.pair import Pair
from tests.replica.test_random import Tree, names, operations
from tests.replica.trees import assert_equal_trees, differences, tree_of

_numbers = itertools.count()
_steps = st.one_of(operations, st.tuples(st.just("fsync"), names))


class CachedTree(Tree):
    """The same operations, and fsync(2)."""

    def do_fsync(self, name: str) -> None:
        fd = os.open(self.at(name), os.O_RDONLY | os.O_NOFOLLOW)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        super().close()
        self.open.clear()

    def sync(self) -> None:
        """Everything, with or without a name."""
        for fd in self.open:
            os.fsync(fd)
        for where, _, files in os.walk(self.root):
            for file in files:
                path = os.path.join(where, file)
                if not os.path.islink(path):
                    self.do_fsync(os.path.relpath(path, self.root))


@given(st.lists(_steps, min_size=5, max_size=60), st.booleans())
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_random_operations(
    shared_caching: Pair, tmp_path: Path, steps: list[tuple[object, ...]], close: bool
) -> None:
    name = f"run-{next(_numbers)}"
    a, b = shared_caching.a, shared_caching.b
    mounted, model = CachedTree(a.path / name), CachedTree(tmp_path / name)
    for tree in (mounted, model):
        tree.root.mkdir()
        (tree.root / "d").mkdir()
    try:
        for step in steps:
            assert mounted.run(step) == model.run(step), step
        found = differences(tree_of(mounted.root, times=False), tree_of(model.root, times=False))
        assert not found, "\n".join(found)
        if close:
            mounted.close()
        else:
            mounted.sync()
        assert_equal_trees(a.backing / name, b.backing / name)
        assert_equal_trees(a.path / name, b.path / name)
        assert_equal_trees(a.path / name, a.backing / name)
    finally:
        mounted.close()
        model.close()
    assert a.stream == "synced", a.log_text() + b.log_text()
