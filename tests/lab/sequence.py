# SPDX-License-Identifier: Apache-2.0
"""A growing set of numbers behind the virtual IP, and what its clients may see of it.

One client adds 1, 2, 3, … and never repeats one that got no answer; others read the
greatest. In the manner of Jepsen, the checker knows nothing of the cluster: it has the
begin and the end of each operation, and what is there in the end.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

SHOWN = 3


@dataclass(frozen=True, slots=True)
class Operation:
    """Seconds of one clock. An addition without an answer ends never."""

    begin: float
    end: float
    kind: str
    """`add` or `read`."""
    number: int
    """What was added, or the greatest that was read; 0 for none."""

    @classmethod
    def parse(cls, line: str) -> Operation:
        kind, begin, end, number = line.split()
        return cls(float(begin), float(end), kind, int(number))

    @property
    def answered(self) -> bool:
        return self.end != float("inf")


def problems(operations: Iterable[Operation], final: Iterable[int]) -> Iterator[str]:
    """What nobody could have seen of one set that loses nothing."""
    operations, there = list(operations), set(final)
    added = [o for o in operations if o.kind == "add"]
    lost = [o for o in added if o.answered and o.number not in there]
    if lost:
        yield f"{len(lost)} acknowledged additions are lost: {some(lost)}"
    if strange := there - {o.number for o in added}:
        yield f"{len(strange)} numbers are there that nobody added: {sorted(strange)[:SHOWN]}"
    stale = list(stale_reads(operations))
    if stale:
        told = ", ".join(f"{r.number} at {r.begin:.3f} instead of {n}" for r, n in stale[:SHOWN])
        yield f"{len(stale)} stale reads: {told}"
    begun = sorted(added, key=lambda o: o.begin)
    begins = [o.begin for o in begun]
    greatest = [0, *accumulate((o.number for o in begun), max)]
    early = [
        o
        for o in operations
        if o.kind == "read" and o.number > greatest[bisect_left(begins, o.end)]
    ]
    if early:
        yield f"{len(early)} reads saw what was not yet added: {some(early)}"


def stale_reads(operations: list[Operation]) -> Iterator[tuple[Operation, int]]:
    """Reads of less than what was acknowledged, or read, before they began; and that number."""
    known = sorted((o for o in operations if o.answered), key=lambda o: o.end)
    ends = [o.end for o in known]
    greatest = [0, *accumulate((o.number for o in known), max)]
    for read in operations:
        if read.kind == "read" and read.number < (least := greatest[bisect_left(ends, read.begin)]):
            yield read, least


def some(operations: list[Operation]) -> str:
    return ", ".join(f"{o.number} at {o.end:.3f}" for o in operations[:SHOWN])
