# SPDX-License-Identifier: Apache-2.0
"""The untar of a large source tree. Sent to a container's python3 as it is.

run DIRECTORY      extracts the archive in parts, and prints the number of each part
                   when all files and directories of it have been fsynced
check DIRECTORY    reads such numbers, compares what they stand for with the archive,
                   extracts it again over what is there, and compares all of it;
                   prints what is wrong, a line each
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

ARCHIVE = "/tmp/source.tar"
SOURCES = ("usr/include", "usr/lib/python3.11", "usr/share/perl")
PART = 60
"""Members of the archive that are extracted and fsynced together."""


def tar(*words: str, members: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["tar", "--file", ARCHIVE, *words, *([] if members is None else ["--files-from=-"])],
        input="" if members is None else "\n".join(members),
        capture_output=True,
        text=True,
        check=False,
    )


def parts() -> list[list[str]]:
    """The names of the archive's members, part by part; the archive is the same everywhere."""
    tar("--create", "--sort=name", "--directory=/", *SOURCES).check_returncode()
    names = [name for name in tar("--list").stdout.splitlines() if not name.endswith("/")]
    return [names[i : i + PART] for i in range(0, len(names), PART)]


def run(directory: str) -> None:
    for number, names in enumerate(parts()):
        done = tar("--extract", f"--directory={directory}", members=names)
        if done.returncode:
            sys.exit(done.stderr)
        for path in touched(directory, names):
            fd = os.open(path, os.O_RDONLY)
            os.fsync(fd)
            os.close(fd)
        print(number, flush=True)


def touched(directory: str, names: list[str]) -> list[str]:
    """The files of these names, and the directories that they lie in, up to the first."""
    paths = {f"{directory}/{name}" for name in names}
    above: set[str] = set()
    for path in paths:
        while (path := os.path.dirname(path)) != os.path.dirname(directory):
            above.add(path)
    return sorted(p for p in paths | above if not os.path.islink(p))


def check(directory: str, acknowledged: set[int]) -> Iterator[str]:
    promised = [name for number, part in enumerate(parts()) for name in part
                if number in acknowledged]  # fmt: skip
    compared = tar("--compare", f"--directory={directory}", members=promised)
    if compared.returncode:
        yield f"fsynced files differ from the archive: {compared.stdout}{compared.stderr}"
    for words in (("--extract",), ("--compare",)):
        done = tar(*words, f"--directory={directory}")
        if done.returncode:
            yield f"{words} of all: {done.stdout}{done.stderr}"


def main() -> None:
    match sys.argv[1:]:
        case ["run", directory]:
            run(directory)
        case ["check", directory]:
            print("\n".join(check(directory, {int(line) for line in sys.stdin})))


if __name__ == "__main__":
    main()
