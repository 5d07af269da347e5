# SPDX-License-Identifier: Apache-2.0
"""SQLite in WAL mode, as an application uses it. Sent to a container's python3 as it is.

run DIRECTORY      commits orders until it is killed, and prints the number of each
                   when its commit has returned
check DIRECTORY    reads such numbers, and prints what is wrong, a line each
"""

from __future__ import annotations

import random
import sqlite3
import sys
from collections.abc import Iterator

TABLES = """
create table if not exists orders (number integer primary key, customer blob);
create table if not exists lines (number integer, position integer, article blob,
                                  primary key (number, position));
create index if not exists customers on orders (customer);
"""
LINES = 3


def text(*what: int) -> bytes:
    chance = random.Random(str(what))
    return chance.randbytes(chance.randint(10, 400))


def opened(directory: str) -> sqlite3.Connection:
    base = sqlite3.connect(f"{directory}/shop.db", isolation_level=None)
    assert base.execute("pragma journal_mode=wal").fetchone() == ("wal",)
    base.execute("pragma synchronous=full")
    base.execute("pragma wal_autocheckpoint=100")  # often, so that a cut meets a checkpoint too
    return base


def run(directory: str) -> None:
    base = opened(directory)
    base.executescript(TABLES)
    number = base.execute("select coalesce(max(number), 0) from orders").fetchone()[0]
    while True:
        number += 1
        base.execute("begin immediate")
        base.execute("insert into orders values (?, ?)", (number, text(number)))
        for position in range(LINES):
            values = (number, position, text(number, position))
            base.execute("insert into lines values (?, ?, ?)", values)
        base.execute("commit")
        print(number, flush=True)


def check(directory: str, acknowledged: set[int]) -> Iterator[str]:
    base = opened(directory)
    for (said,) in base.execute("pragma integrity_check"):
        if said != "ok":
            yield f"integrity_check: {said}"
    there = dict(base.execute("select number, customer from orders"))
    if missing := acknowledged - there.keys():
        yield f"committed orders are missing: {sorted(missing)[:10]}"
    if len(more := there.keys() - acknowledged) > 1 or max(there, default=0) > len(there):
        yield f"orders that nobody committed: {sorted(more)[:10]}"
    for number, customer in there.items():
        if customer != text(number):
            yield f"order {number} has another content"
    lines = base.execute("select number, position, article from lines").fetchall()
    if len(lines) != LINES * len(there):
        yield f"{len(lines)} lines of {len(there)} orders: there is half a transaction"
    for number, position, article in lines:
        if number not in there or article != text(number, position):
            yield f"line {position} of order {number} has another content"


def main() -> None:
    match sys.argv[1:]:
        case ["run", directory]:
            run(directory)
        case ["check", directory]:
            print("\n".join(check(directory, {int(line) for line in sys.stdin})))


if __name__ == "__main__":
    main()
