# SPDX-License-Identifier: Apache-2.0
"""`ha-app NAME`: run an application. `ha-app --stop NAME`: be sure that it does not run."""

from __future__ import annotations

import sys

from haoperator.lean.notify import error


def main() -> int:
    match sys.argv[1:]:
        case ["--stop", name]:
            from haoperator.apps import stopper

            return stopper.make_sure(name)
        case [name] if not name.startswith("-"):
            from haoperator.apps import starter

            return starter.run(name)
        case _:
            error("usage: ha-app NAME | ha-app --stop NAME")
            return 2


if __name__ == "__main__":
    sys.exit(main())
