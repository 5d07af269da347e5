# SPDX-License-Identifier: Apache-2.0
"""The C extension is built so that a mistake in it is hard to make use of.

It is looked at as it came out of the compiler, in the work tree and in the package.
"""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path

import pytest

from haoperator.replica import _hotpath
from tests.lab.cluster import package

MARKS = {"x86_64": r"\bendbr64\b", "aarch64": r"\b(bti|paciasp)\b"}
"""What a function begins with that may be jumped to: see setup.py."""


def shown(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module", params=["work tree", "package"])
def extension(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "work tree":
        return Path(_hotpath.__file__)
    place = tmp_path_factory.mktemp("package")
    subprocess.run(["dpkg-deb", "-x", str(package()), str(place)], check=True)
    [found] = place.rglob("_hotpath*.so")
    return found


def test_stack_and_library_calls_are_guarded(extension: Path) -> None:
    symbols = shown("readelf", "--dyn-syms", "--wide", str(extension))
    assert "__stack_chk_fail" in symbols
    assert re.search(r"__\w+_chk\b", symbols.replace("__stack_chk_fail", ""))


def test_what_the_linker_resolved_is_read_only(extension: Path) -> None:
    assert "GNU_RELRO" in shown("readelf", "--segments", "--wide", str(extension))
    assert "BIND_NOW" in shown("readelf", "--dynamic", "--wide", str(extension))


def test_no_memory_is_both_written_and_executed(extension: Path) -> None:
    segments = shown("readelf", "--segments", "--wide", str(extension))
    flags = re.findall(r"^  (LOAD|GNU_STACK) .* ([R ][W ][E ]) ", segments, re.MULTILINE)
    assert {kind for kind, _ in flags} == {"LOAD", "GNU_STACK"}
    assert not [kind for kind, each in flags if "W" in each and "E" in each]


def test_jumps_end_at_marked_places(extension: Path) -> None:
    mark = MARKS[platform.machine()]
    entry = shown("objdump", "--disassemble=PyInit__hotpath", "--no-show-raw-insn", str(extension))
    assert re.search(mark, entry)
