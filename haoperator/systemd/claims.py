# SPDX-License-Identifier: Apache-2.0
"""Replicated directories that are mount points: somebody else's unit has their name already.

systemd has one mount unit for a path. Where fstab(5) or an administrator's unit file names
it, that unit mounts the file system on which the data lie, and ours has to be a service:
`ha-mount@NAME.service`, ordered after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePath, PurePosixPath

from haoperator.systemd import names

FSTAB = Path("/etc/fstab")
UNIT_DIRECTORIES = tuple(
    Path(directory)
    for directory in (
        "/etc/systemd/system",
        "/run/systemd/system",
        "/usr/local/lib/systemd/system",
        "/usr/lib/systemd/system",
    )
)


def claimed(
    paths: Iterable[PurePath],
    fstab: Path = FSTAB,
    unit_directories: Iterable[Path] = UNIT_DIRECTORIES,
) -> frozenset[PurePath]:
    """Those of `paths` that have a mount unit which is not ours. It reads nothing else."""
    directories = list(unit_directories)
    listed = _listed(fstab)
    return frozenset(
        path
        for path in paths
        if PurePosixPath(path) in listed
        or any((directory / names.mount(path)).exists() for directory in directories)
    )


def _listed(fstab: Path) -> set[PurePosixPath]:
    """The mount points in fstab(5); blanks in them are written in octal."""
    try:
        text = fstab.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return set()
    points = set()
    for line in text.splitlines():
        fields = line.split()
        if len(fields) > 1 and not fields[0].startswith("#") and fields[1].startswith("/"):
            plain = re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), fields[1])
            points.add(PurePosixPath(plain))
    return points
