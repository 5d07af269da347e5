# SPDX-License-Identifier: Apache-2.0
"""A resync makes a directory of the standby like a listing of the primary's.

Names that are not in the listing go, with all below them; what is of another kind is
made anew; names of one inode on the primary become names of one inode here. Contents
and metadata follow in frames of their own. A listing that cannot be applied is an error
even in a mixture: the walk lists only what this side has.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from haoperator.replica import _hotpath, frames, wire
from haoperator.replica.beneath import checked_name, open_beneath, remove_tree
from haoperator.replica.branch import Branch
from haoperator.replica.wire import Rubbish

Key = tuple[int, int]


class Unlike(OSError):
    """The copies differ where nothing was noted: all of them has to be compared."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.ESTALE, reason)


class Matcher:
    """The state of a resync of one directory tree on the standby."""

    def __init__(self, root: int, *, partial: bool, branch: Branch | None = None) -> None:
        self._root = root
        self._branch = branch
        self._partial = partial
        self._seen: set[bytes] = set()
        self._listed: bytes | None = None
        self._groups: dict[int, int] = {}
        """Group → O_PATH descriptor of the one inode that has its names."""
        self._members: dict[Key, int] = {}

    def close(self) -> None:
        for fd in self._groups.values():
            os.close(fd)
        self._groups.clear()
        self._members.clear()

    def match(self, listing: frames.Listing) -> None:
        """Apply one part of a listing. Raises OSError, or Rubbish for parts out of order."""
        if listing.part == 0:
            self._seen.clear()
            self._listed = listing.path
        elif self._listed != listing.path:
            raise Rubbish("a part of a listing that did not begin")
        directory = open_beneath(self._root, listing.path, os.O_RDONLY | os.O_DIRECTORY)
        no_room: OSError | None = None
        try:
            for entry in wire.unpack_entries(listing.entries):
                self._seen.add(checked_name(entry.name))
                try:
                    self._match_entry(directory, entry)
                except OSError as err:
                    if err.errno not in (errno.ENOSPC, errno.EDQUOT):
                        raise
                    no_room = err
            if listing.last:
                for name in map(os.fsencode, os.listdir(directory)):
                    if name not in self._seen:
                        remove_tree(directory, name)
                self._seen.clear()
                self._listed = None
            _hotpath.set_times(directory, None, listing.mtime_ns)
            if no_room is not None:  # only now: what was removed may have made some
                raise no_room
        finally:
            os.close(directory)

    def _match_entry(self, directory: int, entry: frames.Entry) -> None:
        there: os.stat_result | None = None
        with contextlib.suppress(FileNotFoundError):
            there = os.stat(entry.name, dir_fd=directory, follow_symlinks=False)
        if there is not None and not self._fits(directory, entry, there):
            if self._partial and stat.S_ISREG(there.st_mode) and there.st_nlink > 1:
                raise Unlike("names of one file have come apart")
            remove_tree(directory, entry.name)
            there = None
        if there is None and entry.known:
            raise Unlike(f"{os.fsdecode(entry.name)} should be here as it is")
        if there is None and not self._link(directory, entry):
            _make(directory, entry)
        if entry.group and entry.group not in self._groups:
            self._begin_group(directory, entry)

    def _fits(self, directory: int, entry: frames.Entry, there: os.stat_result) -> bool:
        """Whether what is there can stay: the same kind, and the right inode."""
        kind = stat.S_IFMT(entry.mode)
        if stat.S_IFMT(there.st_mode) != kind:
            return False
        if kind == stat.S_IFLNK:
            if os.readlink(os.fsencode(entry.name), dir_fd=directory) != entry.target:
                return False
        elif kind in (stat.S_IFBLK, stat.S_IFCHR) and there.st_rdev != entry.device:
            return False
        if kind == stat.S_IFDIR:
            return True
        group = self._members.get((there.st_dev, there.st_ino), 0)
        if entry.group in self._groups:
            return group == entry.group
        # The first name of its group, or the only one: not an inode that has other names.
        return group == 0 if entry.group else self._links(there) == 1

    def _links(self, there: os.stat_result) -> int:
        return there.st_nlink if self._branch is None else self._branch.links(there)

    def _link(self, directory: int, entry: frames.Entry) -> bool:
        first = self._groups.get(entry.group)
        if first is None:
            return False
        if os.fstat(first).st_nlink == 0:
            raise OSError(errno.ESTALE, "a group of names lost its file: the walk must begin again")
        os.link(f"/proc/self/fd/{first}", entry.name, dst_dir_fd=directory, follow_symlinks=True)
        return True

    def _begin_group(self, directory: int, entry: frames.Entry) -> None:
        fd = os.open(entry.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        st = os.fstat(fd)
        self._groups[entry.group] = fd
        self._members[st.st_dev, st.st_ino] = entry.group

    def set_meta(self, fd: int, meta: frames.Meta) -> None:
        """Owner, mode, all extended attributes and the time of what `fd` (O_PATH) names."""
        magic = f"/proc/self/fd/{fd}"
        st = os.fstat(fd)
        if stat.S_IFMT(st.st_mode) != stat.S_IFMT(meta.mode):
            return  # changed meanwhile: the walk is told and comes again
        if (st.st_uid, st.st_gid) != (meta.uid, meta.gid):
            os.chown(magic, meta.uid, meta.gid)
        wanted = {xattr.name: xattr.value for xattr in wire.unpack_xattrs(meta.xattrs)}
        for name in map(os.fsencode, os.listxattr(magic)):
            if name not in wanted:
                os.removexattr(magic, name)
        for name, value in wanted.items():
            os.setxattr(magic, name, value)
        if not stat.S_ISLNK(st.st_mode):
            os.chmod(magic, stat.S_IMODE(meta.mode))
        if meta.mtime_ns != frames.NO_TIME:
            _hotpath.set_times(fd, None, meta.mtime_ns)


def _make(directory: int, entry: frames.Entry) -> None:
    """Make what is missing, empty and for root alone until its metadata come."""
    kind = stat.S_IFMT(entry.mode)
    if kind == stat.S_IFDIR:
        os.mkdir(entry.name, 0o700, dir_fd=directory)
    elif kind == stat.S_IFLNK:
        os.symlink(entry.target, entry.name, dir_fd=directory)
    elif kind == stat.S_IFREG:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        os.close(os.open(entry.name, flags, 0o600, dir_fd=directory))
    else:
        os.mknod(entry.name, kind | 0o600, entry.device, dir_fd=directory)
