# SPDX-License-Identifier: Apache-2.0
"""What differs between a branch that was set aside and the data as it is now, in words."""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from haoperator.cli.client import Failed
from haoperator.cli.comparison import printable
from haoperator.cli.kept import Kept
from haoperator.replica.manifest import Entry, What, differing_attributes, entry_of

MOST_TEXT = 1024 * 1024
"""Bytes of a file that is still shown line by line."""

_WORDS = {
    What.CONTENT: "content",
    What.ATTRIBUTES: "attributes",
    What.ONLY_KEPT: "only kept",
    What.ONLY_LIVE: "only here",
    What.UNCOMPARED: "?",
}


def differences(kept: Kept, below: bytes | None = None) -> Iterator[str]:
    """One line each; a text line by line if `below` is its path. Raises Failed."""
    found = False
    for entry in kept:
        if below in (None, b"", entry.path) or entry.path.startswith((below or b"") + b"/"):
            found = True
            yield line(kept, entry)
            if entry.path == below:
                yield from _text(kept, entry)
    if below is not None and not found:
        raise Failed(f"{printable(os.fsdecode(below)) or '.'} does not differ in {kept.id}")


def line(kept: Kept, entry: Entry) -> str:
    """One difference, whatever its path is made of."""
    path = printable(os.fsdecode(entry.path)) or "."
    return f"{_WORDS[entry.what]:<10}  {kept.name}: {path}{_detail(kept, entry)}"


def _detail(kept: Kept, entry: Entry) -> str:
    now = live_entry(kept, entry.path)
    if entry.what is What.ONLY_KEPT:
        return "" if now is None else "  (made anew since)"
    if entry.what is What.ONLY_LIVE:
        return f"  (removed on {kept.about.node}, or made on {kept.about.peer})"
    if now is None:
        return "  (removed since)"
    if entry.what is What.ATTRIBUTES:
        return f"  ({', '.join(attributes(entry, now))})"
    if entry.kind != now.kind:
        return f"  (kept: {_kind(entry)}, here: {_kind(now)})"
    if entry.regular:
        return f"  ({entry.size} bytes kept, {now.size} here)"
    return ""


def attributes(entry: Entry, now: Entry) -> Iterator[str]:
    """Those that differ, and what they were."""
    for name in differing_attributes(entry, now):
        if name == "mode":
            yield f"mode {stat.S_IMODE(entry.mode):o}, here {stat.S_IMODE(now.mode):o}"
        elif name in ("uid", "gid"):
            yield f"{name} {getattr(entry, name)}, here {getattr(now, name)}"
        elif name == "xattrs":
            names = {*entry.xattrs, *now.xattrs}
            yield from (
                f"xattr {printable(each)}"
                for each in sorted(names)
                if entry.xattrs.get(each) != now.xattrs.get(each)
            )
        else:
            yield "time of modification"


def live_entry(kept: Kept, path: bytes) -> Entry | None:
    """What has the name now, None: nothing."""
    full = os.path.join(os.fsencode(kept.live), path)
    try:
        parent = os.open(os.path.dirname(full), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        name = os.path.basename(full) or b"."
        return entry_of(path, parent, name, os.stat(name, dir_fd=parent, follow_symlinks=False))
    except OSError:
        return None
    finally:
        os.close(parent)


def _kind(entry: Entry) -> str:
    return {
        stat.S_IFREG: "file",
        stat.S_IFDIR: "directory",
        stat.S_IFLNK: "symbolic link",
        stat.S_IFIFO: "fifo",
        stat.S_IFSOCK: "socket",
    }.get(entry.kind, "device")


def _text(kept: Kept, entry: Entry) -> Iterator[str]:
    """Line by line, if both sides are text. What is not there is empty."""
    now = live_entry(kept, entry.path)
    if entry.what not in (What.CONTENT, What.ONLY_KEPT) or not entry.regular:
        return
    if now is not None and not now.regular:
        return
    live = Path(os.fsdecode(os.path.join(os.fsencode(kept.live), entry.path)))
    was = _lines_of(kept.content_of(entry))
    is_ = [] if now is None else _lines_of(live)
    if was is None or is_ is None:
        return
    one, other = f"{kept.id}/{os.fsdecode(entry.path)}", str(live)
    for text in difflib.unified_diff(was, is_, printable(one), printable(other), lineterm=""):
        yield "\t".join(map(printable, text.split("\t")))


def _lines_of(file: Path) -> list[str] | None:
    """None for what is no text, or too long."""
    try:
        if file.stat().st_size > MOST_TEXT:
            return None
        data = file.read_bytes()
        if b"\0" in data:
            return None
        return data.decode().splitlines()
    except (OSError, UnicodeDecodeError):
        return None
