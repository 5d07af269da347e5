# SPDX-License-Identifier: Apache-2.0
"""A comparison of both copies in words: how far it is, and what came of it.

It is what the report has under `verification` (docs/architecture.md, section 4).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

EQUAL, DIFFERENT, NOT_COMPARED, INTERRUPTED = 0, 1, 2, 130
"""Exit codes of `hactl verify`. What was repaired counts as equal."""


def summary(told: dict[str, Any]) -> str:
    """How far it is, in one line."""
    doing = "repairing" if told["state"] == "repairing" else f"{told['progress']:.0%} compared"
    return f"{doing}: {_extent(told)}, {_count(told['difference_count'], 'difference')}"


def exit_code(told: dict[str, Any]) -> int:
    if told.get("state") != "done":
        return NOT_COMPARED
    right = told["resync"] or told["repaired"] == told["difference_count"]
    return EQUAL if right else DIFFERENT


def result(told: dict[str, Any]) -> Iterator[str]:
    """What came of it, line by line."""
    if told.get("state") not in ("done", "stopped"):
        yield "nothing is known of the comparison: the replicator was restarted"
        return
    for each in told["differences"]:
        yield difference(each)
    more = told["difference_count"] - len(told["differences"])
    if more:
        yield f"and {more} more"
    if told["missed"]:
        yield f"{_count(told['missed'], 'name')} moved too often to be compared"
    took = timedelta(seconds=round(told["ended"] - told["started"]))
    yield f"{_extent(told)} compared in {took}: {outcome(told)}"


def difference(each: dict[str, Any]) -> str:
    """One difference, in one line, whatever its path is made of."""
    path = printable(each["path"]) or "."
    if each["what"] == "content":
        last = each["offset"] + each["length"] - 1
        detail = f"bytes {each['offset']} to {last}"
    else:
        detail = printable(each["detail"])
    return f"{each['directory']}: {path}: {_in_words(each['what'])}: {detail}"


def _in_words(what: str) -> str:
    if what in ("missing", "extra", "unreadable"):
        return what
    return f"{what} {'differ' if what.endswith('s') else 'differs'}"


def outcome(told: dict[str, Any]) -> str:
    count, repaired = told["difference_count"], told["repaired"]
    found = _count(count, "difference") if count else "both copies are equal"
    if told["state"] == "stopped":
        return f"stopped, because {told['reason']}; {_count(count, 'difference')} until then"
    if not count:
        return found
    if not told["repair"]:
        return f"{found}; 'hactl verify --repair' sends them to the standby again"
    if told["resync"]:
        return f"{found}, {repaired} repaired; a resync brings over the rest, see 'hactl status'"
    return f"{found}, {repaired} repaired"


def _extent(told: dict[str, Any]) -> str:
    files, directories = told["files"], told["directories"]
    names = f"{_count(files, 'file')} in {_count(directories, 'directory', 'directories')}"
    return f"{names}, {told['bytes'] / 1e6:.1f} MB"


def _count(number: int, one: str, many: str = "") -> str:
    if not number:
        return f"no {many or one + 's'}"
    return f"{number} {one if number == 1 else many or one + 's'}"


def printable(text: str) -> str:
    """Names as they are, but nothing that a terminal would obey; bytes that are no text as \\x."""
    return "".join(c if c.isprintable() else _escaped(ord(c)) for c in text)


def _escaped(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # os.fsdecode: a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
