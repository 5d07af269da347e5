# SPDX-License-Identifier: Apache-2.0
"""`ha-checker NAME`: read what to check, and become the process that checks it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from haoperator.lean import process
from haoperator.lean.configuration import CONFIGURATION, EXIT_MISCONFIGURED
from haoperator.lean.notify import error, tell

if TYPE_CHECKING:
    from tomlconfig import Checker, Config


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
            tell(f"STATUS=checking {checker.kind} {checker.target}")
            process.become("haoperator.checkers.checker", arguments(checker, config))
    error(f"{CONFIGURATION}: there is no [checker.{name}]")
    return EXIT_MISCONFIGURED


def arguments(checker: Checker, config: Config) -> list[str]:
    """The command line of `haoperator.checkers.checker`."""
    from haoperator.systemd.texts import checker_watchdog
    from tomlconfig import CheckerKind

    target, options = checker.target, {}
    match checker.kind:
        case CheckerKind.HTTP:
            options = {
                "status": str(checker.status or ""),
                "body": checker.body or "",
                "check_certificate": "yes" if checker.check_certificate else "",
                "certificate_left": str(checker.certificate_left or ""),
            }
        case CheckerKind.DISK:
            options = {"free": checker.free}
        case CheckerKind.VIP:
            vip = next(vip for vip in config.vips if vip.name == target)
            target, options = str(vip.address), {"interface": vip.interface}
    numbers = (checker.interval, checker.timeout, checker.failures, checker.successes)
    return [
        checker.name,
        str(checker.kind),
        target,
        *map(str, numbers),
        str(checker_watchdog(checker)),
        *(f"{option}={value}" for option, value in options.items() if value),
    ]


def main() -> int:
    match sys.argv[1:]:
        case [name] if not name.startswith("-"):
            return run(name)
        case _:
            error("usage: ha-checker NAME")
            return 2


if __name__ == "__main__":
    sys.exit(main())
