# SPDX-License-Identifier: Apache-2.0
"""A git server's disk: pushes and clones. Sent to a container's python3 as it is.

run DIRECTORY      makes a repository, then commits, pushes and clones until it is
                   killed, and prints the id of each commit when its push has returned
check DIRECTORY    reads such ids, and prints what is wrong, a line each
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator

SOURCES = "/usr/lib/python3.11/asyncio"
CLONES = 5
"""Every so many pushes there is a new clone."""


def git(*words: str, at: str = "/", check: bool = True) -> str:
    done = subprocess.run(
        ["git", "-C", at, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if check and done.returncode:
        sys.exit(f"git {words} in {at}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


def make(server: str, work: str) -> None:
    """An empty server, and a clone of it with files that are not committed yet."""
    git("init", "-q", "--bare", "--initial-branch=main", server)
    git("clone", "-q", server, work)
    git("checkout", "-q", "-b", "main", at=work)
    for repository in (server, work):
        git("config", "core.fsync", "all", at=repository)
        git("config", "gc.autoDetach", "false", at=repository)
    git("config", "receive.fsckObjects", "true", at=server)
    shutil.copytree(SOURCES, f"{work}/sources", ignore=shutil.ignore_patterns("__pycache__"))


def run(directory: str) -> None:
    server, work, clone = (f"{directory}/{name}" for name in ("server.git", "work", "clone"))
    make(server, work)
    for number in itertools.count():
        names = sorted(os.listdir(f"{work}/sources"))
        with open(f"{work}/sources/{random.choice(names)}", "a") as file:
            file.write(f"# change {number}\n")
        with open(f"{work}/sources/new-{number}", "wb") as new:
            new.write(random.randbytes(random.randint(1, 50_000)))
        git("add", "--all", at=work)
        git("commit", "-q", "-m", f"change {number}", at=work)
        git("push", "-q", "origin", "main", at=work)
        print(git("rev-parse", "HEAD", at=work), flush=True)
        if number % CLONES == CLONES - 1:
            shutil.rmtree(clone, ignore_errors=True)
            git("clone", "-q", "--no-hardlinks", server, clone)
            git("fsck", "--full", "--strict", at=clone)


def check(directory: str, acknowledged: list[str]) -> Iterator[str]:
    server = f"{directory}/server.git"
    for repository in (server, f"{directory}/work"):
        done = subprocess.run(
            ["git", "-C", repository, "fsck", "--full", "--strict", "--no-dangling"],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            yield f"git fsck of {repository}: {done.stdout}{done.stderr}"
    there = git("rev-list", "main", at=server, check=False).splitlines()
    if missing := set(acknowledged) - set(there):
        yield f"pushed commits are missing: {missing}; there are {len(there)}"
    again = f"{directory}/again"
    git("clone", "-q", "--no-hardlinks", server, again)
    git("fsck", "--full", "--strict", at=again)
    if (head := git("rev-parse", "HEAD", at=again)) not in there[:1]:
        yield f"a clone of the server has {head}, the server itself has {there[:1]}"


def main() -> None:
    match sys.argv[1:]:
        case ["run", directory]:
            run(directory)
        case ["check", directory]:
            print("\n".join(check(directory, sys.stdin.read().split())))


if __name__ == "__main__":
    main()
