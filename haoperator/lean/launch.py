# SPDX-License-Identifier: Apache-2.0
"""Script: run `main(arguments)` of a module in an interpreter started with -I -S.

Without site-packages and a configuration in memory, a process that only waits
takes 8 MB. `haoperator.lean.process` calls it; nobody else should.
"""

import importlib
import os
import sys


def launch(module: str, arguments: list[str]) -> int:
    """Import the module from the tree that this file belongs to, and run it."""
    here = os.path.abspath(__file__)
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(here))))
    code: int = importlib.import_module(module).main(arguments)
    return code


if __name__ == "__main__":
    sys.exit(launch(sys.argv[1], sys.argv[2:]))
