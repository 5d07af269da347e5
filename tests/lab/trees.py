# SPDX-License-Identifier: Apache-2.0
"""Directory trees of the nodes, compared as a user sees them: through the mount."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .manifest import BLOCK
from .node import Node

FILL = """
import os, sys
root = sys.argv[1]
os.makedirs(f"{root}/documents/empty", exist_ok=True)
with open(f"{root}/big.bin", "wb") as f:
    for _ in range(int(sys.argv[2])):
        f.write(os.urandom(1 << 20))
for i in range(200):
    with open(f"{root}/documents/{i:03}.txt", "w") as f:
        f.write(f"document {i}\\n" * (i + 1))
os.symlink("../big.bin", f"{root}/documents/link")
os.link(f"{root}/documents/000.txt", f"{root}/documents/hard")
os.chown(f"{root}/documents/001.txt", 1234, 4321)
os.chmod(f"{root}/documents/002.txt", 0o640)
os.setxattr(f"{root}/documents/003.txt", "user.comment", b"kept")
os.utime(f"{root}/documents/004.txt", ns=(10**18, 10**18))
made = [f"{root}/documents/{name}" for name in os.listdir(f"{root}/documents")]
for path in (root, f"{root}/big.bin", f"{root}/documents", *made):
    fd = os.open(path, os.O_RDONLY)  # on the disks of both nodes, whatever happens next
    os.fsync(fd)
    os.close(fd)
"""
CHANGE = """
import os, sys
root = sys.argv[1]
with open(f"{root}/big.bin", "r+b") as f:
    f.seek(3 << 20)
    f.write(os.urandom(1 << 20))
with open(f"{root}/documents/new.bin", "wb") as f:
    f.write(os.urandom(1 << 19))
os.unlink(f"{root}/documents/005.txt")
os.rename(f"{root}/documents/006.txt", f"{root}/documents/renamed.txt")
os.chmod(f"{root}/documents/007.txt", 0o600)
"""


@dataclass(frozen=True, slots=True)
class Tree:
    """Path → what `manifest` tells of it."""

    entries: dict[str, dict[str, Any]]

    @property
    def digest(self) -> str:
        text = json.dumps(self.entries, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def bytes(self) -> int:
        return sum(e.get("size", 0) for e in self.entries.values())

    def differences(self, other: Tree) -> list[str]:
        """What differs, one line for each path and property."""
        found = []
        for path in sorted(self.entries.keys() | other.entries.keys()):
            mine, theirs = self.entries.get(path), other.entries.get(path)
            if mine is None or theirs is None:
                found.append(f"{path}: only on one side")
                continue
            for what in sorted(mine.keys() | theirs.keys()):
                if mine.get(what) != theirs.get(what):
                    shown = "" if what == "blocks" else f" {mine.get(what)} / {theirs.get(what)}"
                    found.append(f"{path}: {what}{shown}")
        return found

    def bytes_changed_since(self, before: Tree) -> int:
        """Content that is new or different, counted in blocks of 4 KiB."""
        changed = 0
        for path, entry in self.entries.items():
            old = before.entries.get(path, {}).get("blocks", [])
            new = entry.get("blocks", [])
            changed += sum(1 for i, b in enumerate(new) if i >= len(old) or old[i] != b)
        return changed * BLOCK


def tree_of(node: Node, path: str) -> Tree:
    program = Path(__file__).with_name("manifest.py").read_text()
    shown = node.exec("python3", "-", path, stdin=program, timeout=120)
    return Tree(json.loads(shown.stdout))


def fill(node: Node, path: str, mebibytes: int) -> None:
    """Puts files of all kinds into `path`, one of them big."""
    node.exec("python3", "-", path, str(mebibytes), stdin=FILL, timeout=180)


def change(node: Node, path: str) -> None:
    """Changes some of what `fill` made: 1.5 MiB of content, names, and modes."""
    node.exec("python3", "-", path, stdin=CHANGE)
