# SPDX-License-Identifier: Apache-2.0
"""Before something changes it is noted: in the intent log, durably, and, exactly, in memory.

The log is coarse (a directory's names, a zone of a file), so that only the first change to
each costs a write to disk. It is for the case that this process or its machine dies: what
the two copies may then differ in is in it. Memory is exact, for the case that the peer
dies: names, and 64 KiB blocks of large files (the data path remembers those in C).

Time is divided into periods (`rotate`). What was not touched in the last whole period, and
is on the disks of both nodes since, is retired from the log and from memory.

All of this is protected by the directory's namespace mutex, but for what the docstrings
say about the gate: there, no change may be in flight.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

from haoperator.replica import marks
from haoperator.replica._hotpath import HotPath
from haoperator.replica.intent import IntentLog
from haoperator.replica.marks import ZONE, ZONE_BLOCKS, Kind, Mark, Range
from haoperator.replica.nodes import Name, Node, NodeTable
from haoperator.replica.touched import Touched, is_large

AHEAD = 4
"""Zones that are written down at once when a file is written from one into the next."""
MOST_ZONES = 256
"""A single change of more of them counts for the whole file."""


class Logged:
    """What the intent log covers, by node ids. A directory that was renamed has an ALL for its
    new path, so that marks below its former one need not be true any more."""

    def __init__(self) -> None:
        self.everything = False
        self.names: set[int] = set()
        self.whole: set[Name] = set()
        self.trees: set[int] = set()
        self.zones: dict[int, set[int]] = {}


class Tracker:
    """The changes of one directory."""

    def __init__(self, name: str, nodes: NodeTable, hot: HotPath, log: IntentLog) -> None:
        self.name = name.encode()
        self._nodes = nodes
        self._hot = hot
        self._log = log
        self._logged = Logged()
        self._current = Touched(nodes)
        self._former = Touched(nodes)
        self._older = Touched(nodes)
        self.changes: Touched | None = None
        """What the peer may lack; None: nothing but what is newer than its last sync."""

    # Before a change. Each raises OSError if it cannot be written down: nothing may change then.

    def entry(self, parent: Node, name: bytes, *, new: bool = False, whole: bool = False) -> None:
        """Something about a name. `new`: what has it will be something else than before.
        `whole`: what is or was there is a directory, or larger than a zone."""
        for touched in self._remembering():
            touched.entry(parent, name, new=new, whole=whole)
        more = self._names(parent)
        place = (parent.id, name)
        if whole and place not in self._logged.whole and not self._covered(parent):
            more.append(Mark(Kind.ALL, self.name, self._nodes.child_path(parent, name)))
        self._write_down(more)
        self._logged.names.add(parent.id)
        if whole:
            self._logged.whole.add(place)

    def attributes(self, node: Node) -> None:
        """Of an inode, by whichever name is known."""
        if node is self._nodes.root:
            for touched in self._remembering():
                touched.entry(None, b"")
            self._write_down(self._names(node))
            self._logged.names.add(node.id)
        elif node.names:
            parent, name = node.names[0]
            self.entry(self._nodes.get(parent), name)
        elif os.fstat(node.fd).st_nlink:
            self._anything()  # it has a name, and nobody knows which

    def written(self, node: Node, offset: int, end: int) -> None:
        """The bytes of a regular file from `offset` to `end`, which is not among them, by the
        data path: it remembers the blocks by itself, and does not ask again for a zone."""
        whole = self._content(node, offset, end)
        if self.changes is not None and not whole and end > ZONE:
            self.changes.track(node)
        self._hot.note(node.id, offset // ZONE, max(offset, end - 1) // ZONE, whole)

    def content(self, node: Node, offset: int, end: int) -> None:
        """The same by any other way."""
        if not self._content(node, offset, end) and self.changes is not None and end > ZONE:
            blocks = Range(offset // marks.BLOCK, (end - 1) // marks.BLOCK)
            self.changes.range(node, blocks)

    def _content(self, node: Node, offset: int, end: int) -> bool:
        """True if all of the file counts, or nobody will ask for it."""
        self.attributes(node)
        if not node.names:
            return True
        parent, name = self._nodes.get(node.names[0][0]), node.names[0][1]
        first, last = offset // ZONE, max(offset, end - 1) // ZONE
        if last == 0:
            return False
        if self._may_be_new(parent, name) or last - first > MOST_ZONES:
            self.entry(parent, name, new=True, whole=True)
            return True
        for zone in range(max(first, 1), last + 1):
            self._current.zone(node, zone)
        self._write_down_zones(node, parent, max(first, 1), last)
        return False

    def _write_down_zones(self, node: Node, parent: Node, first: int, last: int) -> None:
        logged = self._logged.zones.setdefault(node.id, set())
        wanted = set(range(first, last + 1)) - logged
        if not wanted or self._covered(parent):
            return
        if first - 1 in logged:
            wanted |= set(range(last + 1, last + AHEAD)) - logged
        path = self._nodes.child_path(parent, node.names[0][1])
        zones = (Range(z * ZONE_BLOCKS, (z + 1) * ZONE_BLOCKS - 1) for z in wanted)
        self._write_down([Mark(Kind.BLOCKS, self.name, path, *run) for run in marks.merged(zones)])
        logged |= wanted

    def moving(
        self,
        old: tuple[Node, bytes, os.stat_result],
        new: tuple[Node, bytes, os.stat_result | None],
        flags: int,
        *,
        exchange: bool,
    ) -> None:
        """A rename. `new` has the state of what is there now, None: nothing."""
        (old_parent, old_name, st), (new_parent, new_name, there) = old, new
        large = self._moves_whole(st) | (there is not None and self._moves_whole(there))
        if there is not None and not exchange:
            self._hand_on(new_parent, new_name, there)
        self.entry(old_parent, old_name, new=exchange, whole=large)
        self.entry(new_parent, new_name, new=True, whole=large)
        if large:
            one = self._nodes.child_path(old_parent, old_name)
            self._hint(Kind.RENAMED, one, self._nodes.child_path(new_parent, new_name), flags)

    def moved(self, *nodes: Node | None) -> None:
        """The rename is done: these have new paths, for which there is an ALL."""
        for node in nodes:
            if node is not None and stat.S_ISDIR(node.kind):
                self._logged.trees.add(node.id)

    def linking(self, source: Node, parent: Node, name: bytes) -> None:
        """A further name."""
        self.attributes(source)
        large = self._moves_whole(os.fstat(source.fd)) or not source.names
        self.entry(parent, name, new=True, whole=large)
        path = self._nodes.path(source)
        if path is not None:
            self._hint(Kind.LINKED, path, self._nodes.child_path(parent, name), 0)

    def made(self, parent: Node, name: bytes, node: Node) -> None:
        """A directory was made, after `entry` with `whole`."""
        self._logged.trees.add(node.id)
        for touched in self._remembering():
            if touched.is_new(parent.id, name):
                touched.made(node)

    def _hint(self, kind: Kind, path: bytes, other: bytes, flags: int) -> None:
        for touched in self._remembering():
            touched.hint(kind, path, other, flags)

    def removing(self, parent: Node, name: bytes, st: os.stat_result) -> None:
        """A name goes. A directory that goes is empty."""
        large = stat.S_ISREG(st.st_mode) and self._moves_whole(st)
        self._hand_on(parent, name, st)
        self.entry(parent, name, whole=large)

    def _hand_on(self, parent: Node, name: bytes, st: os.stat_result) -> None:
        """One of several names of a file goes: what was noted by it is noted by another."""
        known = any(touched.knows(parent.id, name) for touched in self._all())
        if not stat.S_ISREG(st.st_mode) or st.st_nlink < 2 or not known:
            return
        node = self._nodes.find(st)
        others = [other for other in node.names if other != (parent.id, name)] if node else []
        if not others:
            self._anything()  # it has other names, and nobody knows which
            return
        above, other_name = others[0]
        new = self._may_be_new(parent, name)
        self.entry(self._nodes.get(above), other_name, new=new, whole=new and is_large(st))

    def _moves_whole(self, st: os.stat_result) -> bool:
        """Whether what gets or had a name needs an ALL there. The data path asks anew: what it
        was told about the file held for its former name."""
        node = self._nodes.find(st)
        if node is not None and node.regular:
            self._hot.forget_noted(node.id)
        return is_large(st) or (node is not None and node.id in self._logged.zones)

    def _may_be_new(self, parent: Node, name: bytes) -> bool:
        return any(touched.may_be_new(parent.id, name) for touched in self._all())

    def _remembering(self) -> Iterable[Touched]:
        return (self._current,) if self.changes is None else (self._current, self.changes)

    def _all(self) -> Iterable[Touched]:
        return (*self._remembering(), self._former, self._older)

    def _names(self, parent: Node) -> list[Mark]:
        if parent.id in self._logged.names or self._covered(parent):
            return []
        path = self._nodes.path(parent)
        return [] if path is None else [Mark(Kind.NAMES, self.name, path)]

    def _covered(self, node: Node) -> bool:
        """Whether an ALL above stands for all that is in this directory."""
        passed: list[int] = []
        while not self._logged.everything and node.id not in self._logged.trees:
            if node is self._nodes.root or not node.names:
                return False
            passed.append(node.id)
            node = self._nodes.get(node.names[0][0])
        self._logged.trees.update(passed)
        return True

    def _anything(self) -> None:
        for touched in self._remembering():
            touched.clear()
            touched.everything = True
        if not self._logged.everything:
            self._write_down([Mark(Kind.ALL, self.name, marks.EVERYTHING)])
            self._logged.everything = True

    def _write_down(self, more: list[Mark]) -> None:
        if more:
            self._log.append(more)

    # Periods, and the peer. No change is in flight.

    @property
    def anything(self) -> bool:
        """Whether anything was noted that is not retired."""
        return any(self._all())

    def rotate(self) -> None:
        """A new period begins. The data path has to be told as well (`HotPath.begin_period`)."""
        self._older.absorb(self._former)
        self._former.clear()
        self._former, self._current = self._current, self._former

    def settle(self) -> None:
        """All that was changed before the last `rotate` is on the disks of both nodes."""
        self._older.clear()

    def lose_peer(self) -> None:
        """From here on everything is remembered for the peer (with `HotPath.track`)."""
        if self.changes is None:
            self.changes = Touched(self._nodes)
            for touched in (self._older, self._former, self._current):
                self.changes.absorb(touched)

    def peer_has_everything(self, *, on_disk: bool) -> None:
        """The resync is over, or none was needed. `on_disk`: there, not only in memory."""
        changes, self.changes = self.changes, None
        if changes is None:
            return
        if not on_disk:
            self._former.absorb(changes)
        changes.clear()

    def take_up(self, kept: Iterable[Mark]) -> None:
        """Marks from the log or from the peer: in all of them the copies may differ."""
        self.lose_peer()
        assert self.changes is not None
        for mark in kept:
            if mark.directory == self.name:
                self.changes.take_up(mark)

    def translated(self, noted: Iterable[Mark]) -> list[Mark]:
        """Marks of the peer, with the paths that they have after what was renamed since."""
        found = list(noted)
        for kind, old, new, _ in self.changes.hints if self.changes is not None else ():
            if kind is Kind.RENAMED:
                below = old + b"/"
                found += [
                    mark._replace(path=new + mark.path[len(old) :])
                    for mark in found
                    if mark.path == old or mark.path.startswith(below)
                ]
        return found

    def give_up(self) -> None:
        """Forget everything; what is to be kept has been written down."""
        for touched in self._all():
            touched.clear()
        self.changes = None
        self._logged = Logged()

    def marks(self) -> list[Mark]:
        """All that the log has to hold from here on."""
        found: list[Mark] = []
        self._logged = Logged()
        for touched in (self._current, self._former, self._older):
            found += touched.marks(self.name, exactly=False)
            self._cover(touched)
        if self.changes is not None:
            found += self.changes.marks(self.name, exactly=True)
            for file in self.changes.tracked:
                found += self._tracked_marks(self.changes, file)
        return list(dict.fromkeys(found))

    def _tracked_marks(self, changes: Touched, file: int) -> list[Mark]:
        node = changes.node(file)
        path = self._nodes.path(node) if node is not None else None
        if path is None:
            return []
        return [Mark(Kind.BLOCKS, self.name, path, *run) for run in self.tracked(file)]

    def tracked(self, file: int) -> list[Range]:
        """The blocks that the data path remembers of a file."""
        bits = self._hot.changed(file)
        if bits is None:
            return [Range(0, (1 << 47) // marks.BLOCK)]
        return list(marks.ranges_of_bits(bits))

    def _cover(self, touched: Touched) -> None:
        logged = self._logged
        logged.everything |= touched.everything
        logged.names |= touched.lists | {parent for parent, _ in touched.entries}
        logged.whole |= touched.whole
        for file, zones in touched.zones.items():
            logged.zones.setdefault(file, set()).update(zones)

    # What a resync asks.

    def is_new(self, parent: Node, name: bytes) -> bool:
        """Whether the peer may have something else by this name."""
        return self.changes is None or self.changes.is_new(parent.id, name)

    def ranges(self, node: Node) -> list[Range]:
        """The blocks behind the first zone that the peer may lack of a file."""
        if self.changes is None:
            return []
        found = self.changes.ranges(node.id)
        if node.id in self.changes.tracked:
            found = marks.merged([*found, *self.tracked(node.id)])
        return found
