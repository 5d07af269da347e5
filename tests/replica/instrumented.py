# SPDX-License-Identifier: Apache-2.0
"""Runs a module with another build of the C extension: EXTENSION MODULE [ARGUMENT ...]"""

from __future__ import annotations

import importlib.util
import runpy
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

NAME = "haoperator.replica._hotpath"


class Instead:
    """Finds the extension at a place of its own; a finder of sys.meta_path."""

    def __init__(self, extension: str) -> None:
        self._extension = extension

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != NAME:
            return None
        return importlib.util.spec_from_file_location(name, self._extension)


def main() -> None:
    _, extension, module, *arguments = sys.argv
    sys.meta_path.insert(0, Instead(extension))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
