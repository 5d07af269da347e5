# SPDX-License-Identifier: Apache-2.0
"""Every guard of the failover core negated in turn, to see that some test fails.

    python3 -m tests.core.mutants [--sample N] [--seed N] [--processes N] [--only TEXT]

A guard is what an `if`, a conditional expression, a `match` case or a comprehension asks, each
operand of `and` and `or`, and each comparison. Each mutant lives in a process of its own, which
loads the mutated module instead of the shipped one and then runs what is cheap first: the tests
of decisions and records, the stories, the explorer within small budgets, lives by chance. What
no test can see is in `EQUIVALENT`, with the reason.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import io
import multiprocessing
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import hypothesis  # noqa: F401  # once here, not in each child
import pytest

CORE = Path(__file__).parents[2] / "haoperator" / "core"
MODULES = ("verdict", "step", "splitbrain", "state", "record", "generation", "status")
TESTS = ("test_decisions.py", "test_guards.py", "test_records.py")
STATES = 600
"""Of each case of the explorer."""
LIVES = 150
TIMES = 3
CPU_SECONDS = 60.0
"""A mutant that takes longer goes round in circles, which counts as being caught."""

_WORDS = "only the words of a refusal"
_TOLD = "only what `hactl why` tells of a split brain; nothing is decided by it"
EQUIVALENT: dict[tuple[str, str], str] = {
    ("yield_problem", "state.record.yielded_to"): _WORDS,
    ("yield_problem", "peer.record.yielded_to"): _WORDS,
    ("division", "state.record.yielded_to"): _TOLD,
    (
        "division",
        "compare(state.record.lineage, peer.record.lineage) is not Relation.DIVERGED",
    ): _TOLD,
    ("division", "relation is not Relation.DIVERGED"): _TOLD,
    ("division", "relation is Relation.ANCESTOR"): _TOLD,
    ("division", "state.record.yielded_to in peer.record.lineage"): _TOLD,
    ("division", "winner := winner_by_policy(state, peer)"): _TOLD,
    ("division", "winner == other"): _TOLD,
}
"""By function and guard: why nobody can see the difference."""


@dataclass(frozen=True)
class Mutant:
    """One guard that is negated."""

    module: str
    function: str
    line: int
    column: int
    length: int
    guard: str

    def __str__(self) -> str:
        return f"{self.module}.py:{self.line} {self.function}: not ({self.guard})"


def mutants() -> list[Mutant]:
    """All of them, in the order of the source."""
    found = []
    for module in MODULES:
        text = (CORE / f"{module}.py").read_text(encoding="utf-8")
        tree = ast.parse(text)
        for function, node in _functions(tree):
            for guard in _guards(node):
                source = " ".join((ast.get_source_segment(text, guard) or "").split())
                at = _place(guard)
                found.append(Mutant(module, function, guard.lineno, at[1], at[2], source))
    return found


def _functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    yield f"{node.name}.{inner.name}", inner


def _guards(function: ast.FunctionDef) -> list[ast.expr]:
    found: dict[tuple[int, int, int], ast.expr] = {}
    for node in ast.walk(function):
        asked: Sequence[ast.expr | None] = ()
        match node:
            case ast.If(test=test) | ast.IfExp(test=test) | ast.While(test=test):
                asked = (test,)
            case ast.match_case(guard=guard):
                asked = (guard,)
            case ast.comprehension(ifs=tests):
                asked = tests
            case ast.BoolOp(values=values):
                asked = values
            case ast.Compare():
                asked = (node,)
        for expression in asked:
            while isinstance(expression, ast.UnaryOp) and isinstance(expression.op, ast.Not):
                expression = expression.operand  # the same question
            if expression is not None:
                found.setdefault(_place(expression), expression)
    return [found[place] for place in sorted(found)]


def _place(node: ast.expr) -> tuple[int, int, int]:
    end = (node.end_lineno or node.lineno) * 1000 + (node.end_col_offset or 0)
    return node.lineno, node.col_offset, end


class _Negation(ast.NodeTransformer):
    def __init__(self, mutant: Mutant) -> None:
        self._place = (mutant.line, mutant.column, mutant.length)
        self.made = 0

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.expr) and _place(node) == self._place and not self.made:
            self.made += 1
            return ast.copy_location(ast.UnaryOp(ast.Not(), copy.deepcopy(node)), node)
        return self.generic_visit(node)


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the one module that is not as it was shipped."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, name: str, path: object = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != f"haoperator.core.{self._mutant.module}":
            return None
        return importlib.util.spec_from_loader(name, self)

    def exec_module(self, module: ModuleType) -> None:
        path = CORE / f"{self._mutant.module}.py"
        negation = _Negation(self._mutant)
        tree = ast.parse(path.read_text("utf-8"))
        negation.visit(tree)
        ast.fix_missing_locations(tree)
        assert negation.made == 1
        exec(compile(tree, str(path), "exec"), module.__dict__)


def caught_by(mutant: Mutant | None) -> str:
    """In a process of its own: which test fails, `""` if none does. None: the core as it is."""
    if mutant is not None:
        sys.meta_path.insert(0, _Mutated(mutant))

    def too_long(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGVTALRM, too_long)
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)
    try:
        return _run_tests()
    except TimeoutError:
        return "time"
    except Exception as err:
        return f"{type(err).__name__} at the start"
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _run_tests() -> str:
    here = Path(__file__).parent
    if not _passes(*(str(here / test) for test in TESTS)):
        return "decisions"
    with contextlib.redirect_stdout(io.StringIO()):
        from tests.core.explorer import CASES, Exploration
        from tests.core.life_cycle import PAGE, page
        from tests.core.simulator import life

        try:
            told = page()
        except (AssertionError, RuntimeError):
            return "stories"
        if told != PAGE.read_text(encoding="utf-8"):
            return "stories"
        for seed in range(LIVES // 10):
            if not _lives(life, seed):
                return "lives"
        for case in CASES:
            found = Exploration(case, disturbances=1, states=STATES, settles_every=4).run()
            if found.counterexample is not None:
                return "explorer"
        for seed in range(LIVES // 10, LIVES):
            if not _lives(life, seed):
                return "lives"
    return ""


def _lives(life: object, seed: int) -> bool:
    try:
        life(seed, TIMES)  # type: ignore[operator]
    except (AssertionError, RuntimeError):
        return False
    return True


def _passes(*paths: str) -> bool:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        options = ["-x", "-q", "--hypothesis-seed=0"]
        return pytest.main([*options, *paths]) == pytest.ExitCode.OK


def judge(chosen: Sequence[Mutant], processes: int) -> list[Mutant]:
    """Print what catches each; return the survivors that nobody explained."""
    unexplained = []
    catchers: Counter[str] = Counter()
    with multiprocessing.get_context("fork").Pool(processes, maxtasksperchild=1) as pool:
        # What fails the shipped core too proves nothing.
        if problem := pool.apply(caught_by, (None,)):
            raise SystemExit(f"the shipped core does not pass: {problem}")
        for mutant, catcher in zip(chosen, pool.imap(caught_by, chosen), strict=True):
            why = EQUIVALENT.get((mutant.function, mutant.guard), "")
            if not catcher and not why:
                unexplained.append(mutant)
            kind = catcher or ("equivalent" if why else "SURVIVES")
            catchers[kind] += 1
            print(f"{kind:12}{mutant}{f': {why}' if why and not catcher else ''}", flush=True)
    print(", ".join(f"{kind}: {count}" for kind, count in catchers.most_common()))
    return unexplained


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--sample", type=int, help="so many, chosen by the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", default="", help="whose line in the table has this in it")
    asked = parser.parse_args()
    chosen = [mutant for mutant in mutants() if asked.only in str(mutant)]
    if asked.sample is not None:
        print(f"seed {asked.seed}")
        chosen = random.Random(asked.seed).sample(chosen, asked.sample)
    began = time.monotonic()
    unexplained = judge(chosen, asked.processes)
    print(f"{len(chosen)} mutants, {time.monotonic() - began:.0f} s")
    for mutant in unexplained:
        print(f"survives: {mutant}")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
