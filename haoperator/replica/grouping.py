# SPDX-License-Identifier: Apache-2.0
"""Hard links during a resync: which names are to be names of one inode at the peer."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from haoperator.replica.directory import Directory
from haoperator.replica.nodes import Name, Node


@dataclass(slots=True)
class Group:
    """An inode that has, or had, several names. Its node is pinned."""

    directory: Directory
    node: Node
    id: int
    told: set[Name] = field(default_factory=set)
    """Names that the peer was told of as being of this group."""
    whole: bool = False
    """The peer has its content and metadata: another name is only linked."""


class Groups:
    """All groups of one resync, by the inodes' nodes. Used under the namespace mutex."""

    def __init__(self) -> None:
        self._by_node: dict[int, Group] = {}
        self._last = 0

    def find(self, node: Node) -> Group | None:
        return self._by_node.get(node.id)

    def tell(self, directory: Directory, parent: Node, name: bytes, st: os.stat_result) -> int:
        """The id of the group that a name is to be listed with, 0 for none.

        An inode stays in its group when it has one name left. When none of the names is
        left that the peer was told of, the peer's inode may be gone: a new group begins.
        """
        known = directory.nodes.find(st)
        group = self.find(known) if known is not None else None
        if st.st_nlink == 1 and group is None:
            return 0
        node, _ = directory.nodes.look(parent, name)
        if group is None:
            node.pins += 1  # its id stands for the inode until the end
        if group is None or not group.told.intersection(node.names):
            self._last += 1
            group = self._by_node[node.id] = Group(directory, node, self._last)
        group.told.add((parent.id, name))
        return group.id

    def close(self) -> None:
        """Unpin all nodes. No namespace mutex is held."""
        for group in self._by_node.values():
            with group.directory.namespace:
                group.directory.nodes.unpin(group.node)
        self._by_node.clear()
