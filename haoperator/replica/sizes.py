# SPDX-License-Identifier: Apache-2.0
"""Whom the kernel believes about sizes, where it caches writes (`durability = "fsync"`).

With FUSE_WRITEBACK_CACHE the kernel owns the size and the mtime of every regular file that it
knows: whatever LOOKUP, GETATTR or an invalidation say is ignored until it knows another
inode. On a primary that is right, since all changes come from it. On a standby they come from
the stream. So there, and whenever the role changes, nodes are given up: the inode gets
another id when it is looked up next, and the kernel makes it anew, with what is true then.

- *Former*: from a standby, where all handles only read, and read what is on disk. They go on;
  that their file has grown is the one thing that the kernel can be told (`tell_growth`).
- *Dead*: from a primary. The kernel may hold pages and a size that nobody else knows; all
  that comes by such a handle fails with ESTALE, rather than show or promise what is not so.

The namespace mutex is held by all callers but that of `tell_growth`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from haoperator.core.status import Role
from haoperator.replica import abi

if TYPE_CHECKING:
    from haoperator.replica.directory import Directory
    from haoperator.replica.nodes import Node


def look(directory: Directory, parent: Node, name: bytes) -> tuple[Node, os.stat_result]:
    """What `name` leads to, for an answer to the kernel. Raises OSError."""
    node, st = directory.nodes.look(parent, name)
    if not directory.caches_writes or directory.accepts_writers or not node.regular:
        return node, st
    if node.lookups and node.told != (st.st_size, st.st_mtime_ns):
        directory.nodes.give_up(node)
        node, st = directory.nodes.look(parent, name)
    node.told = (st.st_size, st.st_mtime_ns)
    return node, st


def change_of_role(directory: Directory, role: Role) -> None:
    """Before the directory answers in its new role. Nothing may be in flight, and the tracker
    knows nothing yet, or nothing any more: it goes by ids."""
    if role is Role.SECONDARY and directory.accepts_writers:
        for node in _current(directory):
            directory.nodes.give_up(node, dead=True)
            directory.keep_from_use(node)
        directory.log.serves(writes=False)
    elif role is Role.PRIMARY:
        # Not after a restart of the replicator: the kernel's primary never ceased to be one.
        if not directory.accepts_writers:
            give_up_all(directory)
        directory.log.serves(writes=True)


def give_up_all(directory: Directory) -> None:
    """As a standby's: handles that read go on reading."""
    for node in _current(directory):
        directory.nodes.give_up(node)


def tell_growth(directory: Directory) -> None:
    """Let fstat(2) on a standby show that an open file has grown, to `tail -f` for example.

    What is put into the page cache behind the end moves the end; it is dropped again, since
    nothing on a standby reads from there. Hold no lock: the kernel may make this wait.
    """
    grown = []
    with directory.namespace:
        directory.opened_to_read = {
            node for node in directory.opened_to_read if node.opens and not node.dead
        }
        for node in directory.opened_to_read:
            size, mtime = node.told or (0, 0)
            now = os.fstat(node.fd).st_size
            if now > size:
                node.told = (now, mtime)
                grown.append((node.id, now))
    for node_id, size in grown:
        directory.notify(abi.NOTIFY_STORE, abi.STORE.pack(node_id, size - 1, 1, 0) + b"\0")
        directory.notify(abi.NOTIFY_INVAL_INODE, abi.INVAL_INODE.pack(node_id, 0, 0))


def _current(directory: Directory) -> list[Node]:
    return [node for node in directory.nodes if node.regular and not node.former]
