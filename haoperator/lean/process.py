# SPDX-License-Identifier: Apache-2.0
"""Becoming a small process once the big libraries have done their work.

A library such as docker's SDK costs 42 MB for as long as the process lives, and it
is needed for a second. So a unit's process does its work, and then replaces itself
by a new interpreter that imports a few modules of the standard library and waits.
It keeps its process id, so systemd sees one main process throughout.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

_LAUNCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launch.py")
_INTERPRETER = "/usr/bin/python3" if not sys.executable else sys.executable


def command(module: str, arguments: Sequence[str], *, packages: bool = False) -> list[str]:
    """The command line that runs `module.main(arguments)`, isolated.

    `packages`: with the distribution's packages, for short-lived processes.
    """
    isolation = "-I" if packages else "-IS"
    return [_INTERPRETER, isolation, _LAUNCH, module, *arguments]


def become(module: str, arguments: Sequence[str], *, packages: bool = False) -> NoReturn:
    """Replace this process by `module.main(arguments)`. The environment stays as it is."""
    sys.stdout.flush()
    sys.stderr.flush()
    argv = command(module, arguments, packages=packages)
    os.execv(argv[0], argv)


def run(module: str, arguments: Sequence[str]) -> int:
    """Run `module.main(arguments)` with packages in a process of its own; its exit code."""
    argv = command(module, arguments, packages=True)
    pid = os.posix_spawn(argv[0], argv, os.environ)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
