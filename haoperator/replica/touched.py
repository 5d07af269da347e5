# SPDX-License-Identifier: Apache-2.0
"""What was changed in some period, exactly: names, and parts of files.

Names are kept by the node id of their directory, so a rename of a directory above them
changes nothing here; paths are made when they are needed. All nodes that are mentioned
are pinned. What grows beyond a bound becomes coarser, never wrong.

All of this is protected by the directory's namespace mutex.
"""

from __future__ import annotations

import collections
import os
import stat
from collections.abc import Iterator

from haoperator.replica import marks
from haoperator.replica.marks import ZONE, ZONE_BLOCKS, Kind, Mark, Range
from haoperator.replica.nodes import Name, Node, NodeTable

MOST_NAMES = 2000
"""Names of one directory that are remembered one by one."""
MOST_NODES = 8192
"""Directories and large files; more, and everything counts as changed."""
MOST_TREES = 100_000
MOST_HINTS = 10_000
ROOT: Name = (0, b"")
"""The replicated directory itself, which has no name in it."""


def is_large(st: os.stat_result) -> bool:
    """Whether the first zone is not all of it."""
    return stat.S_ISDIR(st.st_mode) or st.st_size > ZONE


class Touched:
    """One period of one directory."""

    def __init__(self, nodes: NodeTable) -> None:
        self._nodes = nodes
        self.everything = False
        self.entries: dict[Name, bool] = {}
        """Names → whether something else than before has the name, and differs wholly."""
        self.whole: set[Name] = set()
        """Names for which the log has an ALL, whatever is there at the moment."""
        self.lists: set[int] = set()
        """Directories of which every name counts."""
        self.trees: set[int] = set()
        """Directories that were made in this period: the name of the topmost stands for all."""
        self.zones: dict[int, set[int]] = {}
        """Of files larger than a zone. The first zone is always part of the name."""
        self.blocks: dict[int, list[Range]] = {}
        self.tracked: set[int] = set()
        """Files whose blocks the data path remembers."""
        self.hints: list[tuple[Kind, bytes, bytes, int]] = []
        self._pinned: dict[int, Node] = {}
        self._count: collections.Counter[int] = collections.Counter()

    def __bool__(self) -> bool:
        return self.everything or bool(self.entries or self.lists or self.blocks)

    def entry(
        self, parent: Node | None, name: bytes, *, new: bool = False, whole: bool = False
    ) -> None:
        """Something about a name changes. `parent` None: the replicated directory itself."""
        if whole and parent is not None and not self.everything:
            self.whole.add((parent.id, name))
        if self.everything or (parent is not None and parent.id in self.trees):
            return
        if parent is None:
            self.entries.setdefault(ROOT, False)
            return
        place = (parent.id, name)
        known = self.entries.get(place)
        if known is None and parent.id in self.lists and not new:
            return
        self.entries[place] = bool(known) or new
        if known is None and self._pin(parent):
            self._count[parent.id] += 1
            if self._count[parent.id] > MOST_NAMES:
                self._coarsen(parent)

    def _coarsen(self, parent: Node) -> None:
        """From now on all names count; those that stand for more than a zone are kept."""
        self.lists.add(parent.id)
        for place, new in list(self.entries.items()):
            if place[0] == parent.id and not self._stands_for_more(place, new):
                del self.entries[place]
        self._count[parent.id] = 0

    def _stands_for_more(self, place: Name, new: bool) -> bool:
        """Whether it has to be compared beyond the first zone."""
        if place in self.whole:
            return True
        if not new or place == ROOT:
            return False
        try:
            parent = self._pinned[place[0]]
            return is_large(os.stat(place[1], dir_fd=parent.fd, follow_symlinks=False))
        except OSError:
            return False

    def all_names(self, node: Node) -> None:
        """Every name of a directory counts."""
        if not self.everything and self._pin(node):
            self.lists.add(node.id)

    def zone(self, node: Node, zone: int) -> None:
        if not self.everything and self._pin(node):
            self.zones.setdefault(node.id, set()).add(zone)

    def range(self, node: Node, blocks: Range) -> None:
        if not self.everything and self._pin(node):
            self.blocks.setdefault(node.id, []).append(blocks)

    def track(self, node: Node) -> None:
        """The data path remembers the blocks of this file."""
        if not self.everything and self._pin(node):
            self.tracked.add(node.id)

    def made(self, node: Node) -> None:
        """A directory was made: what happens in it needs not be told one by one."""
        if not self.everything and len(self.trees) < MOST_TREES:
            self.trees.add(node.id)

    def hint(self, kind: Kind, path: bytes, other: bytes, flags: int = 0) -> None:
        if len(self.hints) < MOST_HINTS:
            self.hints.append((kind, path, other, flags))

    def is_new(self, parent: int, name: bytes) -> bool:
        """Whether something else than before has the name, and may differ wholly."""
        return self.everything or parent in self.trees or self.entries.get((parent, name), False)

    def knows(self, parent: int, name: bytes) -> bool:
        """Whether anything was noted of what has the name."""
        return (
            self.everything
            or parent in self.lists
            or parent in self.trees
            or (parent, name) in self.entries
        )

    def may_be_new(self, parent: int, name: bytes) -> bool:
        """The same where it is not known of every name."""
        return parent in self.lists or self.is_new(parent, name)

    def node(self, node: int) -> Node | None:
        return self._pinned.get(node)

    def _pin(self, node: Node) -> bool:
        """False: there are too many, everything counts."""
        if node.id not in self._pinned:
            if len(self._pinned) >= MOST_NODES:
                self.clear()
                self.everything = True
                return False
            node.pins += 1
            self._pinned[node.id] = node
        return True

    def absorb(self, other: Touched) -> None:
        """Everything of `other` counts here too."""
        if other.everything and not self.everything:
            self.clear()
            self.everything = True
        for (parent, name), new in list(other.entries.items()):
            whole = (parent, name) in other.whole
            self.entry(other.node(parent), name, new=new, whole=whole)
        for listed in other.lists:
            self.all_names(other._pinned[listed])
        for file, zones in other.zones.items():
            for zone in zones:
                self.zone(other._pinned[file], zone)
        for file, ranges in other.blocks.items():
            for blocks in ranges:
                self.range(other._pinned[file], blocks)
        if not self.everything:
            self.trees |= other.trees
        for hint in other.hints:
            self.hint(*hint)

    def clear(self) -> None:
        pinned, self._pinned = self._pinned, {}
        self.everything = False
        for kept in (self.entries, self.zones, self.blocks, self.hints, self._count):
            kept.clear()
        for some in (self.whole, self.lists, self.trees, self.tracked):
            some.clear()
        for node in pinned.values():
            self._nodes.unpin(node)

    # From and to marks.

    def take_up(self, mark: Mark) -> None:
        """A mark by its path, as far as the path leads today."""
        match mark.kind:
            case Kind.RENAMED | Kind.LINKED:
                self.hint(mark.kind, mark.path, mark.other, mark.first)
            case _ if not mark.path:
                self._take_up_root(mark.kind)
            case Kind.NAMES:
                self.all_names(self._nearest(mark.path))
            case _:
                above, _, name = mark.path.rpartition(b"/")
                parent = self._nearest(above)
                if self._nodes.path(parent) != above:
                    self.all_names(parent)  # the directory is gone: its name differs
                    return
                self.entry(parent, name, new=mark.kind is Kind.ALL)
                if mark.kind is Kind.BLOCKS:
                    self._take_up_blocks(parent, name, Range(mark.first, mark.last))

    def _take_up_root(self, kind: Kind) -> None:
        if kind is Kind.ALL:
            self.clear()
            self.everything = True
        elif kind is Kind.NAMES:
            self.all_names(self._nodes.root)
        else:
            self.entry(None, b"")

    def _take_up_blocks(self, parent: Node, name: bytes, blocks: Range) -> None:
        try:
            node, _ = self._nodes.look(parent, name)
        except OSError:
            return
        if node.regular:
            self.range(node, blocks)
        self._nodes.drop_if_unused(node)

    def _nearest(self, path: bytes) -> Node:
        """The directory at `path`, or the last one on the way that is there."""
        node = self._nodes.root
        for part in path.split(b"/") if path else ():
            try:
                below, st = self._nodes.look(node, part)
            except OSError:
                return node
            if not stat.S_ISDIR(st.st_mode):
                self._nodes.drop_if_unused(below)
                return node
            node = below
        return node

    def marks(self, directory: bytes, *, exactly: bool) -> Iterator[Mark]:
        """As marks: what is known exactly, or as it is written down beforehand."""
        if self.everything:
            yield Mark(Kind.ALL, directory, marks.EVERYTHING)
            return
        lists = set(self.lists)
        for (parent_id, name), new in self.entries.items():
            path = self._path(parent_id, name)
            if path is None:
                continue
            if self._stands_for_more((parent_id, name), new):
                yield Mark(Kind.ALL, directory, path)
            if exactly:
                yield Mark(Kind.ALL if new else Kind.ENTRY, directory, path)
            else:
                lists.add(parent_id)
        for listed in lists:
            path = self._path(listed, None)
            if path is not None:
                yield Mark(Kind.NAMES, directory, path)
        for file in self.zones.keys() | self.blocks.keys():
            path = self._path(file, None)
            if path is not None:
                for first, last in self.ranges(file):
                    yield Mark(Kind.BLOCKS, directory, path, first, last)
        for kind, one, other, flags in self.hints:
            yield Mark(kind, directory, one, flags, 0, other)

    def ranges(self, file: int) -> list[Range]:
        """The blocks of a file, as far as they are remembered here."""
        zones = (
            Range(zone * ZONE_BLOCKS, zone * ZONE_BLOCKS + ZONE_BLOCKS - 1)
            for zone in self.zones.get(file, ())
        )
        return marks.merged([*zones, *self.blocks.get(file, ())])

    def _path(self, node_id: int, name: bytes | None) -> bytes | None:
        if node_id == ROOT[0]:
            return b""
        node = self._pinned[node_id]
        path = self._nodes.path(node)
        if path is None or name is None:
            return path
        return path + b"/" + name if path else name
