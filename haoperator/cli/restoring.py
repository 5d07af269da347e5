# SPDX-License-Identifier: Apache-2.0
"""Brings something that was set aside back, beside what has its name now."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import sys

from haoperator.cli.client import Failed
from haoperator.cli.comparison import printable
from haoperator.cli.divergence import attributes, live_entry
from haoperator.cli.kept import Kept
from haoperator.replica.manifest import Entry, What

STANDARD_OUTPUT = "-"


def restore(kept: Kept, path: bytes, to: str | None) -> str:
    """Returns where it is now. Nothing that exists is overwritten. Raises Failed."""
    chosen = [e for e in kept if e.path == path or not path or e.path.startswith(path + b"/")]
    top = next((e for e in chosen if e.path == path), None)
    if to == STANDARD_OUTPUT:
        _print(kept, _must_hold(kept, top, path))
        return "standard output"
    target = os.fsencode(to) if to else _beside(kept, path)
    wanted = [e for e in chosen if e.what in (What.CONTENT, What.ONLY_KEPT)]
    if not wanted:
        _must_hold(kept, top, path)
    try:
        if os.path.lexists(target):
            raise Failed(f"{_shown(target)} exists already: use --to")
        for entry in wanted:
            below = entry.path[len(path) :].lstrip(b"/") if entry.path != path else b""
            place = os.path.join(target, below) if below else target
            os.makedirs(os.path.dirname(place), exist_ok=True)
            _make(kept, entry, place)
        for entry in reversed(wanted):  # directories after what is in them
            below = entry.path[len(path) :].lstrip(b"/") if entry.path != path else b""
            _dress(entry, os.path.join(target, below) if below else target)
    except OSError as err:
        if err.errno == errno.EROFS:
            raise Failed(_read_only(kept, path, target)) from err
        raise Failed(f"{_shown(target)}: {err.strerror}") from err
    return _shown(target)


def _beside(kept: Kept, path: bytes) -> bytes:
    if not path:
        raise Failed(f"name what is to be restored, or where to: --to DIRECTORY (of {kept.id})")
    return os.path.join(os.fsencode(kept.live), path) + b".splitbrain-" + kept.id.encode()


def _must_hold(kept: Kept, entry: Entry | None, path: bytes) -> Entry:
    """Raises Failed for what nothing was kept of."""
    shown = _shown(path) or "."
    if entry is None:
        raise Failed(f"{shown} is the same in {kept.id} as in the data that won")
    if entry.what is What.ONLY_LIVE:
        raise Failed(f"nothing was kept of {shown}: {kept.about.node} did not have it")
    if entry.what is What.ATTRIBUTES:
        now = live_entry(kept, path)
        differing = ", ".join(attributes(entry, now)) if now else "removed since"
        raise Failed(f"the content of {shown} was the same, and was not kept; {differing}")
    return entry


def _print(kept: Kept, entry: Entry) -> None:
    if not entry.regular:
        raise Failed(f"{_shown(entry.path)} is no regular file: it has no content to print")
    with kept.content_of(entry).open("rb") as content:
        shutil.copyfileobj(content, sys.stdout.buffer)
    sys.stdout.buffer.flush()


def _read_only(kept: Kept, path: bytes, target: bytes) -> str:
    node, peer, shown = kept.about.node, kept.about.peer, _shown(path)
    return (
        f"the data is read-only here, because this node is not primary: 'hactl swap' first; or "
        f"--to a place outside; or, on {peer}: ssh {node} hactl splitbrain restore {kept.id} "
        f"{shown} --to - >{_shown(target)}"
    )


def _make(kept: Kept, entry: Entry, place: bytes) -> None:
    kind = entry.kind
    if kind == stat.S_IFDIR:
        os.makedirs(place, 0o700, exist_ok=True)
    elif kind == stat.S_IFLNK:
        os.symlink(entry.target, place)
    elif kind == stat.S_IFREG:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with (
            os.fdopen(os.open(place, flags, 0o600), "wb") as out,
            kept.content_of(entry).open("rb") as content,
        ):
            shutil.copyfileobj(content, out, 1024 * 1024)
            out.flush()
            os.fsync(out.fileno())
    else:
        os.mknod(place, kind | 0o600, entry.device)


def _dress(entry: Entry, place: bytes) -> None:
    """Owner, then mode: a change of owner clears set-id bits. Last the times."""
    os.chown(place, entry.uid, entry.gid, follow_symlinks=False)
    for name, value in entry.xattrs.items():
        os.setxattr(place, name, value, follow_symlinks=False)
    if not stat.S_ISLNK(entry.mode):
        os.chmod(place, stat.S_IMODE(entry.mode))
    os.utime(place, ns=(entry.mtime_ns, entry.mtime_ns), follow_symlinks=False)


def _shown(path: bytes) -> str:
    return printable(os.fsdecode(path))
