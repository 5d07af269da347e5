# SPDX-License-Identifier: Apache-2.0
"""The nodes that the kernel, the stream or a resync knows of one directory tree.

A node is an inode with an id that is never used again. It pins its inode by an O_PATH
descriptor, so that (device, inode) is a valid key while the node lives, whatever the
backing file system reuses. It also knows names under which it was seen, from which a
path is made for the peer.

All of this is protected by the directory's namespace mutex.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterator
from typing import Protocol

from haoperator.replica._hotpath import openat2
from haoperator.replica.abi import ROOT_ID

RESOLVE_NO_XDEV = 0x01

log = logging.getLogger(__name__)

Key = tuple[int, int]
Name = tuple[int, bytes]
"""The parent's node id, and the name in it."""


class NodeIds:
    """Ids for all directories of a process: the stream has one space of them."""

    def __init__(self) -> None:
        self._last = ROOT_ID
        self._lock = threading.Lock()

    def next(self) -> int:
        with self._lock:
            self._last += 1
            return self._last

    @property
    def last(self) -> int:
        """The highest that was given out."""
        return self._last

    def used(self, node: int) -> None:
        """`node` was given out by a former process."""
        with self._lock:
            self._last = max(self._last, node)


class Node:
    """One inode."""

    __slots__ = (
        "bound",
        "dead",
        "fd",
        "former",
        "id",
        "key",
        "kind",
        "lookups",
        "made",
        "nameless",
        "names",
        "opens",
        "pins",
        "told",
        "unknown_lookups",
        "writers",
    )

    def __init__(self, node: int, fd: int, st: os.stat_result) -> None:
        self.id = node
        self.fd = fd
        self.key: Key = (st.st_dev, st.st_ino)
        self.kind = stat.S_IFMT(st.st_mode)
        self.lookups = 0
        self.unknown_lookups = False
        """`lookups` counts one for those of a former process, however many they were."""
        self.opens = 0
        self.writers = 0
        """How many of them may write."""
        self.former = False
        """Another id stands for the inode since (see `give_up`): this one changes nothing."""
        self.dead = False
        """And it shows nothing either."""
        self.told: tuple[int, int] | None = None
        """Size and mtime that the kernel was told first, on a standby."""
        self.pins = 0
        """Children that are known by a name in here, and resync work that needs it."""
        self.names: tuple[Name, ...] = ()
        self.bound = 0
        """The epoch of the stream in which the peer knows this id."""
        self.nameless = False
        """Made by O_TMPFILE: it may yet get a name."""
        self.made = 0
        """The verification (Outgoing.verification) since whose beginning it exists."""

    @property
    def magic(self) -> str:
        """A path that leads to exactly this inode, a symbolic link included."""
        return f"/proc/self/fd/{self.fd}"

    @property
    def regular(self) -> bool:
        return self.kind == stat.S_IFREG


class NodeLog(Protocol):
    """Where the table is written down for the next process (nodelog.NodeLog)."""

    def named(self, node: int, parent: int, name: bytes, inode: int) -> None: ...
    def unnamed(self, node: int, parent: int, name: bytes, inode: int) -> None: ...
    def dropped(self, node: int) -> None: ...
    def given(self, node: int) -> None: ...
    def given_up(self, node: int) -> None: ...


class NodeTable:
    """The nodes of one directory. The root is there from the start and for ever."""

    def __init__(
        self, root_fd: int, ids: NodeIds, log: NodeLog, dropped: Callable[[Node], None]
    ) -> None:
        self._ids = ids
        self._log = log
        self._dropped = dropped
        self.root = Node(ROOT_ID, root_fd, os.fstat(root_fd))
        self.root.lookups = 1
        self._by_id = {ROOT_ID: self.root}
        self._by_key = {self.root.key: self.root}
        self._foreign: set[Name] = set()
        """What was refused because it lies on another file system: said once."""

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Node]:
        return iter(list(self._by_id.values()))

    def get(self, node: int) -> Node:
        """Raises OSError(ESTALE) for an id that is not known, or dead."""
        found = self._by_id.get(node)
        if found is None or found.dead:
            raise OSError(errno.ESTALE, "unknown node")
        return found

    def current(self, node: int) -> Node:
        """The same for who changes it. To ESTALE the kernel answers by a new LOOKUP."""
        found = self.get(node)
        if found.former:
            raise OSError(errno.ESTALE, "given up")
        return found

    def known(self, node: int) -> Node | None:
        return self._by_id.get(node)

    def find(self, st: os.stat_result) -> Node | None:
        """The node of an inode, if there is one."""
        return self._by_key.get((st.st_dev, st.st_ino))

    def look(self, parent: Node, name: bytes) -> tuple[Node, os.stat_result]:
        """The node that `name` in `parent` leads to now. Raises OSError."""
        st = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
        node = self.find(st)
        if node is None:
            if st.st_dev == self.root.key[0]:
                fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent.fd)
            else:
                fd = self._open_elsewhere(parent, name)
            node, st = self.adopt(fd)
        self.add_name(node, parent, name)
        return node, st

    def _open_elsewhere(self, parent: Node, name: bytes) -> int:
        """Something on another device: a subvolume of btrfs, which is fine, or a file system
        that was mounted below us, which the peer does not have: OSError(EXDEV)."""
        try:
            return openat2(parent.fd, name, os.O_PATH | os.O_NOFOLLOW, 0, RESOLVE_NO_XDEV)
        except OSError as err:
            if err.errno == errno.EXDEV and (parent.id, name) not in self._foreign:
                self._foreign.add((parent.id, name))
                path = os.fsdecode(self.child_path(parent, name))
                log.error("%s is another file system's, mounted below: not replicated", path)
            raise

    def adopt(self, fd: int, node_id: int = 0) -> tuple[Node, os.stat_result]:
        """The node of what `fd` (O_PATH, taken over) is open on."""
        st = os.fstat(fd)
        node = self.find(st)
        if node is not None:
            os.close(fd)
            return node, st
        node = Node(node_id or self._ids.next(), fd, st)
        self._by_id[node.id] = node
        self._by_key[node.key] = node
        return node, st

    def add_name(self, node: Node, parent: Node, name: bytes) -> None:
        entry = (parent.id, name)
        if entry in node.names:
            return
        if node.kind == stat.S_IFDIR:  # a directory has one name: it was moved
            for former in node.names:
                self._unname(node, former)
        node.names += (entry,)
        parent.pins += 1
        self._log.named(node.id, parent.id, name, node.key[1])

    def adopt_former(self, fd: int, node_id: int) -> Node:
        """A node that a former process had given up; `fd` is taken over."""
        node = Node(node_id, fd, os.fstat(fd))
        node.former = True
        self._by_id[node_id] = node
        return node

    def give_up(self, node: Node, *, dead: bool = False) -> None:
        """Let the inode get another id when it is looked up next (sizes.py)."""
        if not node.former:
            node.former = True
            del self._by_key[node.key]
        node.dead = dead
        if dead:
            self._log.dropped(node.id)
        else:
            self._log.given_up(node.id)

    def adopt_nameless(self, fd: int) -> tuple[Node, os.stat_result]:
        """The same for what O_TMPFILE made."""
        node, st = self.adopt(fd)
        node.nameless = True
        self._log.given(node.id)
        return node, st

    def will_be_named(self, node: Node, parent: Node, name: bytes) -> None:
        """A rename is about to happen: `add_name` or `will_not_be_named` follows."""
        self._log.named(node.id, parent.id, name, node.key[1])

    def will_not_be_named(self, node: Node, parent: Node, name: bytes) -> None:
        if (parent.id, name) not in node.names:
            self._log.unnamed(node.id, parent.id, name, node.key[1])

    def remove_name(self, node: Node, parent: Node, name: bytes) -> None:
        entry = (parent.id, name)
        if entry in node.names:
            self._unname(node, entry)

    def _unname(self, node: Node, entry: Name) -> None:
        node.names = tuple(other for other in node.names if other != entry)
        self._log.unnamed(node.id, *entry, node.key[1])
        parent = self._by_id.get(entry[0])
        if parent is not None:
            parent.pins -= 1
            self.drop_if_unused(parent)

    def prefer_name(self, node: Node, parent: Node, name: bytes) -> None:
        """Let paths go by this one of the node's names."""
        entry = (parent.id, name)
        node.names = (entry, *(other for other in node.names if other != entry))

    def path(self, node: Node) -> bytes | None:
        """A path from the root, None where no name is known."""
        parts: list[bytes] = []
        while node is not self.root:
            if not node.names:
                return None
            parent, name = node.names[0]
            parts.append(name)
            up = self._by_id.get(parent)
            if up is None:
                return None
            node = up
        parts.reverse()
        return b"/".join(parts)

    def child_path(self, parent: Node, name: bytes) -> bytes:
        """The path of a name in a directory. Raises OSError(ENOENT) if it was removed."""
        path = self.path(parent)
        if path is None:
            raise OSError(errno.ENOENT, "the directory was removed")
        return path + b"/" + name if path else name

    def forget(self, node: Node, lookups: int) -> bool:
        """The kernel gave back references. True if the node is gone."""
        if node.unknown_lookups:
            # One of them stands for all that a former process gave out. Those that this one gave
            # may be newer than what the kernel forgot: rather kept in vain than lost in use.
            node.unknown_lookups = False
            lookups = 1
        node.lookups = max(0, node.lookups - lookups)
        return self.drop_if_unused(node)

    def unpin(self, node: Node) -> bool:
        node.pins -= 1
        return self.drop_if_unused(node)

    def drop_if_unused(self, node: Node) -> bool:
        if node.lookups or node.pins or node is self.root or node.id not in self._by_id:
            return False
        del self._by_id[node.id]
        if not node.former:
            del self._by_key[node.key]
        os.close(node.fd)
        self._log.dropped(node.id)
        for entry in node.names:
            self._unname(node, entry)
        self._dropped(node)
        return True

    def revalidate(self) -> None:
        """Forget names that lead elsewhere by now: the stream changed the tree below us."""
        for node in self:
            for entry in node.names:
                parent = self._by_id.get(entry[0])
                try:
                    if parent is None:
                        raise FileNotFoundError
                    st = os.stat(entry[1], dir_fd=parent.fd, follow_symlinks=False)
                except OSError:
                    self._unname(node, entry)
                else:
                    if (st.st_dev, st.st_ino) != node.key:
                        self._unname(node, entry)
