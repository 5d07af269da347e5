# SPDX-License-Identifier: Apache-2.0
"""Where a directory lies, by what the kernel says of mounts (/proc/self/mountinfo, proc(5)).

A directory is replicated by one mount alone, and what is mounted below it lies on another
file system: neither would be seen by tomlconfig, which knows paths and not what leads to
the same place: symbolic links, bind mounts, mounts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

FILE_SYSTEM = "fuse.haoperator"
MOUNTINFO = Path("/proc/self/mountinfo")

Place = tuple[str, PurePosixPath]
"""A file system, and a path within it."""


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of mountinfo. `root` is the place within the file system that is seen."""

    device: str
    root: PurePosixPath
    point: PurePosixPath
    type: str
    source: str

    @property
    def ours(self) -> bool:
        return self.type == FILE_SYSTEM


def mounts(text: str | None = None) -> list[Mount]:
    """All mounts, in the order in which they cover each other."""
    if text is None:
        text = MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape")
    found = []
    for line in text.splitlines():
        fields = line.split(" ")
        end = fields.index("-")
        found.append(
            Mount(
                fields[2],
                PurePosixPath(_plain(fields[3])),
                PurePosixPath(_plain(fields[4])),
                fields[end + 1],
                _plain(fields[end + 2]),
            )
        )
    return found


def mounted_type(path: str) -> str | None:
    """The type of the file system mounted exactly at `path`, None where nothing is."""
    here = [mount.type for mount in mounts() if mount.point == PurePosixPath(path)]
    return here[-1] if here else None


def objection(path: str, now: list[Mount]) -> str:
    """Why the directory at `path` (absolute, without links) cannot be replicated, or `""`."""
    wanted = PurePosixPath(path)
    place = _place(wanted, now)
    for mount in now:
        if mount.ours and (problem := _collision(wanted, place, mount, now)):
            return problem
    for mount in now:
        if wanted in mount.point.parents:
            return (
                f"another file system is mounted at {mount.point}: what lies on it cannot be "
                f"replicated with {path}; mount it elsewhere, or replicate directories beside it"
            )
    return ""


def _collision(path: PurePosixPath, place: Place, mount: Mount, now: list[Mount]) -> str:
    """Why `path` does not go together with a mount of ours, or `""`."""
    other, name = mount.point, f"[replicate.{mount.source}]"
    if path == other:
        return f"{path} is mounted already, as {name}"
    if other in path.parents or path in other.parents:
        return f"{path} and {other} of {name} lie in one another; replicate the outer one alone"
    if _overlap(place, _place(other, now)):
        return (
            f"{path} and {other} of {name} are the same place, or lie in one another: "
            "a bind mount leads from one to the other"
        )
    return ""


def _place(path: PurePosixPath, now: list[Mount]) -> Place:
    """The file system below `path`, our mounts aside, and the place within it."""
    below = [
        mount
        for mount in now
        if not mount.ours and (mount.point == path or mount.point in path.parents)
    ]
    longest = max(len(mount.point.parts) for mount in below)
    under = [mount for mount in below if len(mount.point.parts) == longest][-1]
    return under.device, under.root / path.relative_to(under.point)


def _overlap(one: Place, other: Place) -> bool:
    return one[0] == other[0] and (
        one[1] == other[1] or one[1] in other[1].parents or other[1] in one[1].parents
    )


def _plain(text: str) -> str:
    """Blanks and the like are written in octal."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)
