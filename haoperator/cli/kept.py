# SPDX-License-Identifier: Apache-2.0
"""The branches of the data that lost a split brain and were set aside on this node."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from haoperator.cli.client import Failed
from haoperator.replica.manifest import (
    ABOUT,
    DIFFERENCES,
    FILES,
    MANIFEST,
    About,
    Entry,
    beside,
    entries,
)
from tomlconfig import Config


@dataclass(frozen=True, slots=True)
class Kept:
    """What was set aside of one replicated directory. Its methods raise Failed."""

    name: str
    live: Path
    """The directory as it is now."""
    place: Path
    about: About

    @property
    def id(self) -> str:
        return self.about.id

    @property
    def compared(self) -> bool:
        """False while the resync that overwrites the branch is under way."""
        return (self.place / DIFFERENCES).exists() and not (self.place / MANIFEST).exists()

    @property
    def when(self) -> str:
        return datetime.fromtimestamp(self.about.taken_at).strftime("%Y-%m-%d %H:%M")

    def __iter__(self) -> Iterator[Entry]:
        """What differs from the data that won."""
        if not self.compared:
            raise Failed(f"{self.id}: the resynchronisation is under way, see 'hactl status'")
        return entries(self.place / DIFFERENCES)

    def content_of(self, entry: Entry) -> Path:
        return self.place / FILES / str(entry.inode)

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return sum(each.stat().st_blocks * 512 for each in (self.place / FILES).iterdir())


def kept_here(config: Config) -> list[Kept]:
    """All that this node keeps, the oldest first. Raises Failed."""
    found = []
    try:
        for replica in config.replicate:
            above = replica.path / beside(replica.name)
            if above.is_dir():
                found += [_kept(replica.name, replica.path, each) for each in above.iterdir()]
    except PermissionError as err:
        raise Failed("only root can read what was set aside") from err
    return sorted((each for each in found if each), key=lambda kept: (kept.id, kept.name))


def _kept(name: str, live: Path, place: Path) -> Kept | None:
    """None while it is being set aside."""
    if not (place / MANIFEST).exists() and not (place / DIFFERENCES).exists():
        return None
    try:
        about = About.from_json((place / ABOUT).read_text(encoding="ascii"))
    except (OSError, ValueError) as err:
        raise Failed(f"{place}: {err}") from err
    return Kept(name, live, place, about)


def branch(config: Config, id_: str) -> list[Kept]:
    """What was set aside under this id, by directory. Raises Failed."""
    here = kept_here(config)
    found = [kept for kept in here if kept.id == id_]
    if not found:
        ids = sorted({kept.id for kept in here})
        known = f"here are: {', '.join(ids)}" if ids else "nothing is set aside on this node"
        raise Failed(f"{id_} is not here; {known}")
    return found


def find(config: Config, id_: str, path: str) -> tuple[Kept, bytes]:
    """Where `path` is: absolute, as it is now, or from the top of its directory. Raises Failed."""
    candidates = branch(config, id_)
    wanted = os.fsencode(os.path.normpath(path))
    for kept in candidates:
        top = os.fsencode(kept.live)
        if wanted == top or wanted.startswith(top + b"/"):
            return kept, wanted[len(top) + 1 :]
    if os.path.isabs(path):
        raise Failed(f"{path} is in none of the replicated directories of {id_}")
    relative = b"" if wanted == b"." else wanted
    for kept in candidates:
        if any(entry.path == relative for entry in kept):
            return kept, relative
    return candidates[0], relative
