# SPDX-License-Identifier: Apache-2.0
"""The C extension built to watch itself, and replicators that run with it.

`HAOPERATOR_SANITIZER=address` (which includes undefined behaviour) or `=thread` in the
environment of pytest makes every replicator of the tests in this directory run with such
a build. A report ends the replicator, stays in its log, and fails the test.
"""

from __future__ import annotations

import os
import subprocess
import sys
from enum import StrEnum
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VARIABLE = "HAOPERATOR_SANITIZER"
SIGNS = ("ERROR: AddressSanitizer", "runtime error: ", "WARNING: ThreadSanitizer", "FATAL: ")
"""What the reports of the sanitizers have in them."""


class Sanitizer(StrEnum):
    ADDRESS = "address"
    THREAD = "thread"


FLAGS = {
    Sanitizer.ADDRESS: "-fsanitize=address,undefined -fno-sanitize-recover=all",
    Sanitizer.THREAD: "-fsanitize=thread",
}
LIBRARY = {Sanitizer.ADDRESS: "libasan.so", Sanitizer.THREAD: "libtsan.so"}
OPTIONS = {
    # What the interpreter keeps until it ends is no leak of ours.
    Sanitizer.ADDRESS: {
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1:strict_string_checks=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    },
    Sanitizer.THREAD: {"TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1"},
}


def chosen() -> Sanitizer | None:
    """The one that the environment asks for."""
    name = os.environ.get(VARIABLE, "")
    return Sanitizer(name) if name else None


@cache
def build(sanitizer: Sanitizer) -> Path:
    """The extension with it, in build/; what is older than its sources is built anew.

    Once a process, before anything is mounted: whoever forks with a file of a mount open
    waits for its replicator (see spawner.py).
    """
    place = ROOT / "build" / "sanitizers" / sanitizer
    flags = f"-O1 -g -fno-omit-frame-pointer -U_FORTIFY_SOURCE {FLAGS[sanitizer]}"
    made = subprocess.run(
        [
            *(sys.executable, "-W", "ignore", "setup.py", "-q", "build_ext"),
            *("--build-lib", str(place), "--build-temp", str(place / "objects")),
        ],
        cwd=ROOT,
        env=os.environ | {"CFLAGS": flags, "LDFLAGS": flags},
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    [extension] = (place / "haoperator" / "replica").glob("_hotpath*.so")
    return extension


def command(sanitizer: Sanitizer, extension: Path, module: str, *arguments: str) -> list[str]:
    """How to run a module with such an extension."""
    settings = OPTIONS[sanitizer] | {"LD_PRELOAD": _library(sanitizer)}
    return [
        *(("setarch", "--addr-no-randomize") if _addresses_too_wide(sanitizer) else ()),
        "env",
        *(f"{name}={value}" for name, value in settings.items()),
        *(sys.executable, "-m", "tests.replica.instrumented", str(extension), module),
        *arguments,
    ]


@cache
def _library(sanitizer: Sanitizer) -> str:
    asked = ["gcc", f"-print-file-name={LIBRARY[sanitizer]}"]
    found = subprocess.run(asked, capture_output=True, text=True, check=True)
    return os.path.realpath(found.stdout.strip())


def _addresses_too_wide(sanitizer: Sanitizer) -> bool:
    """The thread sanitizer of GCC 12 does not start where the kernel spreads addresses so."""
    bits = Path("/proc/sys/vm/mmap_rnd_bits")
    return sanitizer is Sanitizer.THREAD and bits.exists() and int(bits.read_text()) > 28


def reports(text: str) -> str:
    """From the first report in a log on, or the empty string."""
    found = [at for sign in SIGNS if (at := text.find(sign)) >= 0]
    return text[min(found) :][:6000] if found else ""
