# SPDX-License-Identifier: Apache-2.0
"""`python3 inserts.py DIRECTORY`: SQLite inserts a second, each a transaction, WAL, FULL."""

import contextlib
import sqlite3
import sys
import time
from pathlib import Path

MOST = 4000
LIMIT_SECONDS = 1.5


def main() -> None:
    path = Path(sys.argv[1]) / "inserts.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        if db.execute("pragma journal_mode=wal").fetchone() != ("wal",):
            sys.exit("no write-ahead log here")
        db.execute("pragma synchronous=full")
        db.execute("create table sold (item integer primary key, what text)")
        count, start = 0, time.monotonic()
        while count < MOST and time.monotonic() < start + LIMIT_SECONDS:
            db.execute("insert into sold values (?, ?)", (count, "x" * 100))
            count += 1
        print(count / (time.monotonic() - start))
    path.unlink()


if __name__ == "__main__":
    main()
