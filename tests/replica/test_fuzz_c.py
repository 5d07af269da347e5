# SPDX-License-Identifier: Apache-2.0
"""Nothing that is sent to the C parsers makes them read or write where they must not."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import sysconfig
from distutils.core import run_setup
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent / "fuzz"
INCLUDED = {"applier.c", "hotpath.c"}
"""Sources that files in fuzz/ include, to reach what is static in them."""
SECONDS = int(os.environ.get("HAOPERATOR_FUZZ_SECONDS", "8"))
FLAGS = [
    *("-O1", "-g", "-fno-omit-frame-pointer", "-Wall", "-Wextra"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
]


@pytest.fixture(scope="module")
def program() -> Path:
    """The parsers and what feeds them, in one program, in build/."""
    with contextlib.chdir(ROOT):  # its sources are found from there
        [extension] = run_setup(str(ROOT / "setup.py"), stop_after="init").ext_modules
    sources = [ROOT / source for source in extension.sources]
    built = ROOT / "build" / "fuzz"
    built.parent.mkdir(exist_ok=True)
    made = subprocess.run(
        [
            *("gcc", *FLAGS, f"-I{sysconfig.get_path('include')}", "-o", str(built)),
            *map(str, HERE.glob("*.c")),
            *(str(source) for source in sources if source.name not in INCLUDED),
            *(f"-l{library}" for library in extension.libraries),
            f"-lpython{sysconfig.get_config_var('LDVERSION')}",
        ],
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
    return built


def test_no_frame_and_no_request_does_harm(program: Path) -> None:
    seed = os.environ.get("HAOPERATOR_FUZZ_SEED") or str(secrets.randbelow(1 << 32))
    ran = subprocess.run(
        [str(program), seed, str(SECONDS)],
        env=os.environ | {"ASAN_OPTIONS": "detect_leaks=1"},
        capture_output=True,
        text=True,
        timeout=SECONDS + 60,
    )
    sys.stdout.write(f"seed {seed}: {ran.stdout}")
    assert ran.returncode == 0, f"seed {seed}\n{ran.stderr[-6000:]}"
    assert int(ran.stdout.split()[0]) > 1000
