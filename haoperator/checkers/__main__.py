# SPDX-License-Identifier: Apache-2.0
"""`ha-checker NAME`: read what to check, and become the process that checks it."""

from __future__ import annotations

import sys

from haoperator.lean import process
from haoperator.lean.configuration import CONFIGURATION, EXIT_MISCONFIGURED
from haoperator.lean.notify import error, tell


def run(name: str) -> int:
    """Returns only if there is no such checker."""
    from tomlconfig import ConfigError, load

    try:
        config = load(CONFIGURATION)
    except ConfigError as err:
        error(str(err))
        return EXIT_MISCONFIGURED
    for checker in config.checkers:
        if checker.name == name:
            tell("READY=1", f"STATUS=checking {checker.target}")
            numbers = (checker.interval, checker.timeout, checker.failures)
            process.become(
                "haoperator.checkers.checker",
                [name, str(checker.kind), checker.target, *map(str, numbers)],
            )
    error(f"{CONFIGURATION}: there is no [checker.{name}]")
    return EXIT_MISCONFIGURED


def main() -> int:
    match sys.argv[1:]:
        case [name] if not name.startswith("-"):
            return run(name)
        case _:
            error("usage: ha-checker NAME")
            return 2


if __name__ == "__main__":
    sys.exit(main())
