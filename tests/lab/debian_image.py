# SPDX-License-Identifier: Apache-2.0
"""A container image with real applications in it: PostgreSQL, SQLite, git, tar, Python.

It is made without a registry, from the Debian packages that this machine has
(packaging/apt-packages brings them): their files, and the libraries that their
programs are linked with. Made again when one of the packages has another version.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from .command import LabError, run
from .containers import pack
from .lock import locked

NAME = "applications:1"
PACKAGES = (
    *("coreutils", "dash", "diffutils", "git", "grep", "sed", "tar", "util-linux"),
    *("libpython3.11-minimal", "libpython3.11-stdlib", "python3-minimal", "python3.11-minimal"),
    *("postgresql-15", "postgresql-client-15"),
    # source trees
    *("libc6-dev", "linux-libc-dev", "perl-modules-5.36"),
)
LEFT_OUT = re.compile(
    r"/usr/share/(?!postgresql|perl)|^(/usr)?/sbin/|/etc/|/var/|/lib/systemd/|bitcode|llvmjit|\.a$"
)
POSTGRES = 5432
"""Uid and gid: PostgreSQL refuses to run as root."""
PATH = "/usr/lib/postgresql/15/bin:/usr/bin:/bin"
RECIPE = 1
"""Raised when this file changes in a way that needs a new image."""

Files = dict[str, Path | bytes | str]


def provide(cache: Path) -> Path:
    """The archive for `docker load`, made now if it is not there yet (seconds)."""
    archive = cache / f"applications-{key()}.tar"
    with locked(cache / "applications.lock"):
        if not archive.exists():
            environment = [f"PATH={PATH}", "LANG=C.UTF-8", "HOME=/tmp"]
            pack(archive, NAME, files(), ["sh"], environment, stop_signal="SIGINT")
        for old in cache.glob("applications-*.tar"):
            if old != archive:
                old.unlink()
    return archive


def key() -> str:
    """Identifies the recipe and the versions of what goes into the image."""
    show = ("dpkg-query", "--show", "--showformat=${Package} ${Version} ${db:Status-Status}\n")
    versions = run(*show, *PACKAGES, "libc6", check=False).stdout
    if versions.count(" installed\n") != len(PACKAGES) + 1:
        raise LabError(f"not all of these Debian packages are installed: {PACKAGES}", versions)
    recipe = f"{RECIPE} {LEFT_OUT.pattern} {PATH} {versions}"
    return hashlib.sha256(recipe.encode()).hexdigest()[:12]


def files() -> Files:
    """Path in the image → a file of this machine, a content, or (str) a symlink's target."""
    chosen: Files = {
        "etc/passwd": (
            b"root:x:0:0:root:/tmp:/bin/sh\n"
            + f"postgres:x:{POSTGRES}:{POSTGRES}::/tmp:/bin/sh\n".encode()
        ),
        "etc/group": f"root:x:0:\npostgres:x:{POSTGRES}:\n".encode(),
        "etc/gitconfig": b"[user]\nname = lab\nemail = lab@localhost\n[safe]\ndirectory = *\n",
        "usr/share/zoneinfo/UTC": Path("/usr/share/zoneinfo/Etc/UTC").resolve(),
    }
    programs = []
    for name in run("dpkg-query", "--listfiles", *PACKAGES).stdout.splitlines():
        path = Path(name)
        if LEFT_OUT.search(name) or path.is_dir():
            continue
        if path.is_symlink():
            chosen[name.lstrip("/")] = os.readlink(path)
        elif path.is_file():
            chosen[name.lstrip("/")] = path
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    programs.append(name)
    for library in libraries(programs):
        chosen[library.lstrip("/")] = Path(library).resolve()
    return chosen


def libraries(programs: list[str]) -> set[str]:
    """The shared libraries and the loader that these programs name."""
    shown = run("ldd", *programs, check=False).stdout
    return set(re.findall(r"(/\S+\.so\S*) \(0x", shown))
