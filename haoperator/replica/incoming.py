# SPDX-License-Identifier: Apache-2.0
"""The standby applies what the primary did: every frame but those of the data path.

One thread, in the order of the stream. While the tree is a mixture (resync), what fails
because something is missing or of another kind is passed over: the walk comes by and
makes it good. Anything else that fails raises, and this copy is outdated.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from haoperator.replica import _hotpath, abi, frames, wire
from haoperator.replica.abi import Valid
from haoperator.replica.beneath import open_beneath, opened, parent_of, remove_tree
from haoperator.replica.branch import Branch, NotKept
from haoperator.replica.checking import Checker
from haoperator.replica.frames import Type
from haoperator.replica.hashing import HashPool
from haoperator.replica.matching import Matcher, Unlike
from haoperator.replica.mixture import follow_hint, make_way, rename_in_a_mixture
from haoperator.replica.wire import Rubbish

PASSED_OVER = (
    errno.ENOENT,
    errno.EEXIST,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENOTEMPTY,
    errno.ELOOP,
    errno.ENODATA,
    errno.EINVAL,
    errno.EXDEV,
    errno.EMLINK,
    errno.EBADF,
)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
"""Passed over too, to the end of the walk: it may yet remove what takes the room. Then this
copy is not complete, and the next resync finds the room."""
ABOUT_THE_STREAM = (Type.SYNCFS, Type.HANDOVER, Type.DONE, Type.SETTLED)
DATA_FLAGS = os.O_RDWR | os.O_NOATIME | os.O_NOFOLLOW | os.O_NONBLOCK


class Later(OSError):
    """Content of the branch that is to be kept is large, and is being copied."""


class Session(Protocol):
    """What the standby's session does with the frames about itself."""

    def handed_over(self, token: bytes) -> None: ...
    def resynced(self, done: frames.Done) -> None: ...
    def settled(self) -> None: ...
    def progressed(self, directory: int, told: frames.Progress) -> None: ...


class Incoming:
    """Applies frames to the trees behind `roots` (in the order of the handshake)."""

    def __init__(
        self,
        applier: _hotpath.Applier,
        roots: Sequence[int],
        session: Session,
        hashes: HashPool,
        *,
        tolerant: bool,
        partial: bool,
        branches: Sequence[Branch] = (),
    ) -> None:
        self._applier = applier
        self._branches = list(branches)
        """Of each root, while the losing branch of a split brain is overwritten."""
        self._guarded: dict[int, Branch] = {}
        """Nodes whose content may be shared with it."""
        self._roots = roots
        self._session = session
        self._hashes = hashes
        self._checker = Checker(applier)
        self._tolerant = tolerant
        self._lacking = 0
        self._matchers = [
            Matcher(root, partial=partial, branch=self._branch_of(root)) for root in roots
        ]
        applier.set_tolerant(tolerant)
        self._handlers: dict[int, Callable[[int, int, int, frames.Frame], None]] = {
            Type.FSYNC: self._fsync,
            Type.BIND: self._bind,
            Type.UNBIND: self._unbind,
            Type.MAKE: self._make,
            Type.TMPFILE: self._tmpfile,
            Type.LINK: self._link,
            Type.REMOVE: self._remove,
            Type.RENAME: self._rename,
            Type.SETATTR: self._setattr,
            Type.SETXATTR: self._setxattr,
            Type.REMOVEXATTR: self._removexattr,
            Type.FALLOCATE: self._fallocate,
            Type.LISTING: self._listing,
            Type.META: self._meta,
            Type.HASH: self._hash,
            Type.SYNCFS: self._syncfs,
            Type.HANDOVER: self._handover,
            Type.DONE: self._done,
            Type.HINT: self._hint,
            Type.SETTLED: self._settled,
            Type.PROGRESS: self._progress,
            Type.CHECK: self._check,
            Type.LOOK: self._look,
            Type.SUM: self._sum,
        }

    def apply(self, received: wire.Received) -> None:
        """Apply one frame. Raises Rubbish, or OSError where this copy stays behind."""
        type_number, directory, seq, node, payload = received
        if node in self._guarded and type_number in (Type.WRITE, Type.SYNCDATA):
            self._write_guarded(node)
            return
        frame = wire.from_primary(type_number, payload)
        if type_number in ABOUT_THE_STREAM:
            root = -1
        elif directory < len(self._roots):
            root = self._roots[directory]
        else:
            raise Rubbish(f"directory {directory} was not agreed on")
        try:
            self._handlers[type_number](root, seq, node, frame)
        except OSError as err:
            if isinstance(err, Later):
                self._lacking = errno.EBUSY
                return
            if isinstance(err, NotKept) or (isinstance(err, Unlike) and not self._lacks()):
                raise
            if not (self._tolerant and self._passes_over(type_number, err)):
                raise OSError(err.errno, f"{type(frame).__name__}: {err.strerror}") from err
            if type_number == Type.FSYNC:  # somebody waits for this one
                self._applier.post(Type.SYNCED, seq, 0, b"")
        except Rubbish:
            raise
        except (ValueError, TypeError, OverflowError, RecursionError) as err:
            # a number or a name that no system call takes, a lineage that is none
            raise Rubbish(f"{type(frame).__name__}: {err}") from err

    def _branch_of(self, root: int) -> Branch | None:
        return self._branches[self._roots.index(root)] if self._branches else None

    def _release(self, root: int, fd: int) -> None:
        """Before the content of the file at `fd` changes. Raises Later, NotKept."""
        branch = self._branch_of(root)
        if branch is not None and not branch.release(fd):
            raise Later(errno.EBUSY, "set aside first")

    def _write_guarded(self, node: int) -> None:
        """Data for a file whose content may be the branch's, too. Raises NotKept."""
        fd = self._applier.fd(node)
        if fd is not None and fd >= 0 and not self._guarded[node].release(fd):
            self._lacking = errno.EBUSY
            return
        del self._guarded[node]
        self._applier.write_released()

    def _lacks(self) -> int:
        """The error of what found no room here and was passed over, 0: nothing."""
        return self._lacking or self._applier.lacking()

    def _passes_over(self, type_number: int, err: OSError) -> bool:
        if type_number in ABOUT_THE_STREAM:
            return False
        if err.errno in NO_ROOM:
            self._lacking = err.errno or errno.ENOSPC
            return True
        return err.errno in PASSED_OVER and (type_number != Type.LISTING or self._lacks() != 0)

    def _require_room(self) -> None:
        """Before this copy counts as complete. Raises what was passed over."""
        if (lacking := self._lacks()) == errno.EBUSY:
            raise OSError(lacking, "large files of the losing data are set aside first")
        if lacking:
            raise OSError(lacking, os.strerror(lacking))

    def _bind(self, root: int, seq: int, node: int, frame: frames.Frame) -> None:
        bind = cast(frames.Bind, frame)
        fd = -1
        try:
            fd = open_beneath(root, bind.path, DATA_FLAGS)
            self._require_regular(fd)
        except OSError as err:
            if fd >= 0:
                os.close(fd)
            fd = -1
            if not (self._tolerant and err.errno in (*PASSED_OVER, errno.ENXIO)):
                raise
        self._applier.bind(node, fd)
        branch = self._branch_of(root)
        if branch is not None and fd >= 0 and branch.shares(os.fstat(fd)):
            self._guarded[node] = branch
            self._applier.guard(node)

    @staticmethod
    def _require_regular(fd: int) -> None:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EISDIR, "not a regular file")

    def _unbind(self, root: int, seq: int, node: int, frame: frames.Frame) -> None:
        self._applier.unbind(node)

    def _make(self, root: int, seq: int, node: int, frame: frames.Frame) -> None:
        make = cast(frames.Make, frame)
        kind, mode = stat.S_IFMT(make.mode), stat.S_IMODE(make.mode)
        data_fd = -1
        if stat.S_ISREG(kind) and node:
            self._applier.bind(node, -1)  # known from here on, there or not
        with parent_of(root, make.path) as (parent, name):
            if stat.S_ISREG(kind):
                data_fd = os.open(
                    name, DATA_FLAGS | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=parent
                )
                if node:
                    self._applier.bind(node, data_fd)  # which closes it
            elif stat.S_ISDIR(kind):
                os.mkdir(name, 0o700, dir_fd=parent)
            elif stat.S_ISLNK(kind):
                os.symlink(make.target, name, dir_fd=parent)
            else:
                os.mknod(name, kind | 0o600, make.device, dir_fd=parent)
            fd = data_fd
            if fd < 0:
                fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                dress(fd, kind, mode, make.uid, make.gid)
                if make.acl:
                    os.setxattr(f"/proc/self/fd/{fd}", abi.ACL_ACCESS, make.acl)
                _hotpath.set_times(fd, None, make.mtime_ns)
            finally:
                if fd != data_fd or not node:
                    os.close(fd)
            _hotpath.set_times(parent, None, make.parent_mtime_ns)

    def _tmpfile(self, root: int, seq: int, node: int, frame: frames.Frame) -> None:
        made = cast(frames.Tmpfile, frame)
        self._applier.bind(node, -1)
        fd = open_beneath_tmpfile(root, made.path)
        self._applier.bind(node, fd)
        dress(fd, stat.S_IFREG, stat.S_IMODE(made.mode), made.uid, made.gid)
        _hotpath.set_times(fd, None, made.mtime_ns)

    def _link(self, root: int, seq: int, node: int, frame: frames.Frame) -> None:
        link = cast(frames.Link, frame)
        if self._tolerant:
            make_way(root, link.path)
        bound = self._applier.fd(node) if node else None
        with parent_of(root, link.path) as (parent, name):
            if bound is not None and bound >= 0:
                os.link(f"/proc/self/fd/{bound}", name, dst_dir_fd=parent, follow_symlinks=True)
            else:
                with opened(root, link.source) as source:
                    os.link(
                        f"/proc/self/fd/{source}", name, dst_dir_fd=parent, follow_symlinks=True
                    )
            _hotpath.set_times(parent, None, link.parent_mtime_ns)

    def _remove(self, root: int, seq: int, node: int, frame: frames.Frame) -> None:
        remove = cast(frames.Remove, frame)
        with parent_of(root, remove.path) as (parent, name):
            if self._tolerant:
                # Gone on the primary, with all that was in it: what a mixture still has
                # in there is from before, and no walk will come by to clear it away.
                remove_tree(parent, name)
            elif remove.directory:
                os.rmdir(name, dir_fd=parent)
            else:
                os.unlink(name, dir_fd=parent)
            _hotpath.set_times(parent, None, remove.parent_mtime_ns)

    def _rename(self, root: int, seq: int, node: int, frame: frames.Frame) -> None:
        rename = cast(frames.Rename, frame)
        if self._tolerant:
            rename_in_a_mixture(root, rename)
        else:
            with (
                parent_of(root, rename.old) as (old_parent, old),
                parent_of(root, rename.new) as (new_parent, new),
            ):
                _hotpath.renameat2(old_parent, old, new_parent, new, rename.flags)
        for path, mtime_ns in (
            (rename.old, rename.old_parent_mtime_ns),
            (rename.new, rename.new_parent_mtime_ns),
        ):
            with parent_of(root, path) as (parent, _):
                _hotpath.set_times(parent, None, mtime_ns)

    def _target(self, root: int, node: int, path: bytes) -> int:
        """A descriptor of its own for what a frame names."""
        bound = self._applier.fd(node) if node else None
        if bound is None:
            if node:
                raise Rubbish(f"node {node} is not bound")
            return open_beneath(root, path, os.O_PATH | os.O_NOFOLLOW)
        if bound < 0:
            raise FileNotFoundError(errno.ENOENT, "not there when it was bound")
        return os.dup(bound)

    def _setattr(self, root: int, seq: int, node: int, frame: frames.Frame) -> None:
        change = cast(frames.Setattr, frame)
        valid = change.valid & 0xFFF
        fd = self._target(root, node, change.path)
        magic = f"/proc/self/fd/{fd}"
        try:
            if valid & (Valid.UID | Valid.GID):
                os.chown(magic, change.uid, change.gid)
            if valid & Valid.MODE:
                os.chmod(magic, stat.S_IMODE(change.mode))
            if valid & Valid.SIZE:
                if os.fstat(fd).st_size != change.size:
                    self._release(root, fd)
                os.truncate(magic, change.size)
            _hotpath.set_times(fd, _time(change.atime_ns), _time(change.mtime_ns))
        finally:
            os.close(fd)

    def _setxattr(self, root: int, seq: int, node: int, frame: frames.Frame) -> None:
        change = cast(frames.Setxattr, frame)
        fd = self._target(root, node, change.path)
        try:
            os.setxattr(f"/proc/self/fd/{fd}", change.name, change.value)
        finally:
            os.close(fd)

    def _removexattr(self, root: int, seq: int, node: int, frame: frames.Frame) -> None:
        change = cast(frames.Removexattr, frame)
        fd = self._target(root, node, change.path)
        try:
            os.removexattr(f"/proc/self/fd/{fd}", change.name)
        finally:
            os.close(fd)

    def _fallocate(self, root: int, seq: int, node: int, frame: frames.Frame) -> None:
        change = cast(frames.Fallocate, frame)
        fd = self._target(root, node, b"")
        try:
            self._release(root, fd)
            _hotpath.fallocate(fd, change.mode, change.offset, change.length)
            _hotpath.set_times(fd, None, change.mtime_ns)
        finally:
            os.close(fd)

    def _fsync(self, root: int, seq: int, node: int, frame: frames.Frame) -> None:
        fd = open_beneath(root, cast(frames.FsyncPath, frame).path, os.O_RDONLY | os.O_DIRECTORY)
        self._hashes.run(self._fsync_and_close, fd, seq)

    def _fsync_and_close(self, fd: int, seq: int) -> None:
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        self._applier.post(Type.SYNCED, seq, 0, b"")

    def _syncfs(self, root: int, seq: int, node: int, frame: frames.Frame) -> None:
        if self._tolerant:
            self._require_room()

        def work() -> None:
            for each in self._roots:
                _hotpath.syncfs(each)
            self._applier.post(Type.SYNCED, seq, 0, b"")

        self._hashes.run(work)

    def _listing(self, root: int, seq: int, node: int, frame: frames.Frame) -> None:
        if not self._tolerant:
            raise Rubbish("a listing outside a resync")
        self._matchers[self._roots.index(root)].match(cast(frames.Listing, frame))

    def _meta(self, root: int, seq: int, node: int, frame: frames.Frame) -> None:
        if not self._tolerant:
            raise Rubbish("metadata outside a resync")
        meta = cast(frames.Meta, frame)
        with opened(root, meta.path) as fd:
            self._matchers[self._roots.index(root)].set_meta(fd, meta)

    def _hash(self, root: int, seq: int, node: int, frame: frames.Frame) -> None:
        fd = self._applier.fd(node)
        copy = os.dup(fd) if fd is not None and fd >= 0 else -1
        self._hashes.hash(self._applier, copy, seq, cast(frames.Hash, frame))

    def _handover(self, root: int, seq: int, node: int, frame: frames.Frame) -> None:
        self._session.handed_over(cast(frames.Handover, frame).token)

    def _hint(self, root: int, seq: int, node: int, frame: frames.Frame) -> None:
        if not self._tolerant:
            raise Rubbish("a hint outside a resync")
        follow_hint(root, cast(frames.Hint, frame))

    def _progress(self, root: int, seq: int, node: int, frame: frames.Frame) -> None:
        told = cast(frames.Progress, frame)
        self._session.progressed(self._roots.index(root), told)

    def _settled(self, root: int, seq: int, node: int, frame: frames.Frame) -> None:
        self._session.settled()

    def _done(self, root: int, seq: int, node: int, frame: frames.Frame) -> None:
        self._require_room()
        self._session.resynced(cast(frames.Done, frame))
        self._tolerant = False
        self._applier.set_tolerant(False)
        for matcher in self._matchers:
            matcher.close()
        self._applier.release_all()
        self._forget_branches()

    def _forget_branches(self) -> None:
        self._guarded.clear()
        for branch in self._branches:
            branch.close()
        self._branches.clear()

    def _check(self, root: int, seq: int, node: int, frame: frames.Frame) -> None:
        self._checker.check(root, seq, cast(frames.Check, frame))

    def _look(self, root: int, seq: int, node: int, frame: frames.Frame) -> None:
        self._checker.look(root, seq, cast(frames.Look, frame))

    def _sum(self, root: int, seq: int, node: int, frame: frames.Frame) -> None:
        self._checker.sum(root, seq, cast(frames.Sum, frame))

    def close(self) -> None:
        self._checker.close()
        for matcher in self._matchers:
            matcher.close()
        self._forget_branches()
        self._applier.unbind_all()


def open_beneath_tmpfile(root: int, path: bytes) -> int:
    """A nameless file on the file system of a directory."""
    with opened(root, path) as parent:
        return os.open(f"/proc/self/fd/{parent}", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)


def dress(fd: int, kind: int, mode: int, uid: int, gid: int) -> None:
    """Owner, then mode: a change of owner clears set-id bits. `fd`: O_PATH, or a regular file."""
    if stat.S_ISREG(kind):
        os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)
        return
    magic = f"/proc/self/fd/{fd}"
    os.chown(magic, uid, gid)
    if not stat.S_ISLNK(kind):
        os.chmod(magic, mode)


def _time(ns: int) -> int | None:
    return None if ns == frames.NO_TIME else ns
