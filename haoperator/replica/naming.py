# SPDX-License-Identifier: Apache-2.0
"""Names that go, move, or are added to something that has one already."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from haoperator.replica import _hotpath, abi, frames
from haoperator.replica.abi import RENAME_EXCHANGE, RENAME_NOREPLACE
from haoperator.replica.change import Change, parent_mtime, resent
from haoperator.replica.outgoing import Phase

if TYPE_CHECKING:
    from haoperator.replica.directory import Directory
    from haoperator.replica.nodes import Node, NodeTable


def unlink(directory: Directory, header: abi.Header, body: bytes) -> Change:
    return _unlinked(directory, header, body, is_directory=False)


def rmdir(directory: Directory, header: abi.Header, body: bytes) -> Change:
    return _unlinked(directory, header, body, is_directory=True)


def _unlinked(
    directory: Directory, header: abi.Header, body: bytes, *, is_directory: bool
) -> Change:
    name, _ = abi.name_in(body)
    nodes = directory.nodes
    parent = nodes.get(header.node)
    path = nodes.child_path(parent, name)
    try:
        st = os.stat(name, dir_fd=parent.fd, follow_symlinks=False)
        node = nodes.find(st)
        directory.tracker.removing(parent, name, st)
        _keep_known(directory, node, st)
        if is_directory:
            os.rmdir(name, dir_fd=parent.fd)
        else:
            os.unlink(name, dir_fd=parent.fd)
    except FileNotFoundError:
        if not resent(header):
            raise
        node = None
    if node is not None:
        nodes.remove_name(node, parent, name)
    return 0, frames.Remove(path, int(is_directory), parent_mtime(parent)), b""


def _keep_known(directory: Directory, node: Node | None, st: os.stat_result) -> None:
    """A name of a file goes, maybe the last one that is known of it. The kernel may hold back
    writes to it: let the peer know it by its id before, then they need no name."""
    if not directory.caches_writes or node is None or not node.regular:
        return
    if st.st_nlink > 1 and node.names:
        directory.outgoing.bind(directory, node)


def rename(directory: Directory, header: abi.Header, body: bytes) -> Change:
    (new_parent,) = abi.RENAME_IN.unpack_from(body)
    return _renamed(directory, header, body[abi.RENAME_IN.size :], new_parent, 0)


def rename2(directory: Directory, header: abi.Header, body: bytes) -> Change:
    new_parent, flags, _ = abi.RENAME2_IN.unpack_from(body)
    return _renamed(directory, header, body[abi.RENAME2_IN.size :], new_parent, flags)


def _renamed(
    directory: Directory, header: abi.Header, names: bytes, new_parent_id: int, flags: int
) -> Change:
    old, at = abi.name_in(names)
    new, _ = abi.name_in(names, at)
    nodes = directory.nodes
    old_parent, new_parent = nodes.get(header.node), nodes.get(new_parent_id)
    old_path = nodes.child_path(old_parent, old)
    new_path = nodes.child_path(new_parent, new)
    if flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE):
        raise OSError(errno.EINVAL, "unsupported rename flag")
    try:
        moved_st = os.stat(old, dir_fd=old_parent.fd, follow_symlinks=False)
    except FileNotFoundError:
        if resent(header) and not flags & RENAME_EXCHANGE:
            return 0, None, b""
        raise
    moved, replaced, replaced_st = nodes.find(moved_st), None, None
    with contextlib.suppress(FileNotFoundError):
        replaced_st = os.stat(new, dir_fd=new_parent.fd, follow_symlinks=False)
        replaced = nodes.find(replaced_st)
        if os.path.samestat(moved_st, replaced_st) and not flags & RENAME_NOREPLACE:
            return 0, None, b""  # two names of one inode: rename(2) does nothing
    exchange = bool(flags & RENAME_EXCHANGE)
    directory.tracker.moving(
        (old_parent, old, moved_st), (new_parent, new, replaced_st), flags, exchange=exchange
    )
    if replaced_st is not None:
        _keep_known(directory, replaced, replaced_st)
    with _announced(nodes, moved, new_parent, new):
        _hotpath.renameat2(old_parent.fd, old, new_parent.fd, new, flags)
    if moved is not None:
        nodes.remove_name(moved, old_parent, old)
    if replaced is not None:
        nodes.remove_name(replaced, new_parent, new)
        if exchange:
            nodes.add_name(replaced, old_parent, old)
    if moved is not None:
        nodes.add_name(moved, new_parent, new)
    directory.tracker.moved(moved, replaced if exchange else None)
    directory.outgoing.moved(directory, (old_parent, old), (new_parent, new), exchange=exchange)
    frame = frames.Rename(
        old_path, new_path, flags, parent_mtime(old_parent), parent_mtime(new_parent)
    )
    return 0, frame, b""


@contextlib.contextmanager
def _announced(nodes: NodeTable, moved: Node | None, parent: Node, name: bytes) -> Iterator[None]:
    """Write the new name down before it is true: a restart finds one of the two."""
    if moved is not None:
        nodes.will_be_named(moved, parent, name)
    try:
        yield
    except OSError:
        if moved is not None:
            nodes.will_not_be_named(moved, parent, name)
        raise


def link(directory: Directory, header: abi.Header, body: bytes) -> Change:
    (source_id,) = abi.LINK_IN.unpack_from(body)
    name, _ = abi.name_in(body, abi.LINK_IN.size)
    nodes, outgoing = directory.nodes, directory.outgoing
    source, parent = nodes.current(source_id), nodes.get(header.node)
    path = nodes.child_path(parent, name)
    source_path = nodes.path(source)
    known = source_path is not None or outgoing.is_bound(source)
    if not known and outgoing.phase is Phase.SYNCED:
        raise OSError(errno.EIO, "the peer does not have this file")
    directory.tracker.linking(source, parent, name)
    try:
        os.link(source.magic, name, dst_dir_fd=parent.fd, follow_symlinks=True)
    except FileExistsError:
        if not resent(header):
            raise
    st = os.fstat(source.fd)
    nodes.add_name(source, parent, name)
    source.lookups += 1
    source.nameless = False
    outgoing.linked(directory, source, (parent, name))
    entry = abi.pack_entry(source.id, st, directory.cache_seconds)
    if not known:  # a resync takes it along
        directory.hot.set_bound(source.id, 0)
        return 0, None, entry
    frame = frames.Link(source_path or b"", path, parent_mtime(parent))
    return source.id if outgoing.is_bound(source) else 0, frame, entry
