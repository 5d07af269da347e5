# SPDX-License-Identifier: Apache-2.0
"""A reflink copy of a replicated directory beside it, taken before a resync makes it a mixture.

It shares all blocks with the tree (btrfs, xfs), so it costs little space and no copying, and
it is what a node can go back to when its primary dies for good in the middle of the resync.
It lies in `.haoperator-NAME` beside the directory, on the same file system:

    tree/           the copy, once `whole` is there
    whole           an empty file: the copy is complete, and on disk
    mixture/        while it is being restored: what was in the directory
    cleared         an empty file: nothing is left in the directory but what is of the copy; it
                    has the times that the directory itself is to get

`restore` may be interrupted anywhere and called again.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import subprocess

from haoperator.replica import _hotpath
from haoperator.replica.beneath import remove_tree


class Snapshot:
    """Of the directory that `root_fd` is open on. Its methods raise OSError."""

    def __init__(self, name: str, root_fd: int) -> None:
        self._root_fd = root_fd
        self._place = f"/proc/self/fd/{root_fd}/../.haoperator-{name}"

    @property
    def whole(self) -> bool:
        return os.path.exists(f"{self._place}/whole")

    @property
    def taken_at(self) -> float:
        """Seconds since the epoch, for people."""
        return os.stat(f"{self._place}/whole").st_mtime

    def take(self) -> None:
        """Copy the tree as it is; nothing may change in it meanwhile. Replaces a former copy.

        Raises OSError(EOPNOTSUPP) where the file system has no reflinks, EXDEV where the
        directory is the top of its file system.
        """
        self._require_same_file_system()
        self.drop()
        os.mkdir(self._place, 0o700)
        try:
            self._copy()
            _hotpath.syncfs(self._root_fd)
            self._note("whole")
        except OSError:
            self.drop()
            raise

    def _require_same_file_system(self) -> None:
        above = os.stat(f"/proc/self/fd/{self._root_fd}/..")
        if above.st_dev != os.fstat(self._root_fd).st_dev:
            raise OSError(
                errno.EXDEV, "the directory is the top of its file system, nothing fits beside it"
            )

    def _copy(self) -> None:
        tree = f"{self._place}/tree"
        os.mkdir(tree, 0o700)
        # cp knows hard links, holes, attributes and all kinds of files.
        done = subprocess.run(
            ["cp", "-a", "--reflink=always", "--", f"/proc/self/fd/{self._root_fd}/.", tree],
            pass_fds=[self._root_fd],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or done.stderr:  # whoever ignores SIGCHLD is told 0 always
            reason = done.stderr.strip().splitlines()[-1:] or ["cp failed"]
            raise OSError(errno.EOPNOTSUPP, f"no reflink copy: {reason[0]}")

    def restore(self) -> None:
        """Make the directory what it was when the copy was taken. The copy is used up, and what
        is left of it can be dropped at leisure.

        All or nothing as far as a caller sees who repeats it until it returns.
        """
        mixture, tree = f"{self._place}/mixture", f"{self._place}/tree"
        if not os.path.exists(f"{self._place}/cleared"):
            os.makedirs(mixture, exist_ok=True)
            # Opened anew: btrfs shows a descriptor the names of the time when it was opened.
            for name in os.listdir(f"/proc/self/fd/{self._root_fd}"):
                os.rename(name, f"{mixture}/{name}", src_dir_fd=self._root_fd)
            os.fsync(self._root_fd)
            self._note("cleared", os.stat(tree))
        for name in os.listdir(tree):
            os.rename(f"{tree}/{name}", name, dst_dir_fd=self._root_fd)
        self._restore_attributes(tree)
        _hotpath.syncfs(self._root_fd)
        self._unmark()

    def _restore_attributes(self, tree: str) -> None:
        root = f"/proc/self/fd/{self._root_fd}"
        st = os.stat(tree)
        os.chown(root, st.st_uid, st.st_gid)
        for name in set(os.listxattr(root)) - set(os.listxattr(tree)):
            os.removexattr(root, name)
        for name in os.listxattr(tree):
            os.setxattr(root, name, os.getxattr(tree, name))
        os.chmod(root, stat.S_IMODE(st.st_mode))
        times = os.stat(f"{self._place}/cleared")
        os.utime(root, ns=(times.st_atime_ns, times.st_mtime_ns))

    def drop(self) -> None:
        """Remove the copy; first of all it is no longer whole. Harmless to repeat."""
        with contextlib.suppress(FileNotFoundError):
            self._unmark()
        above = os.open(f"/proc/self/fd/{self._root_fd}/..", os.O_RDONLY | os.O_DIRECTORY)
        try:
            remove_tree(above, os.path.basename(os.fsencode(self._place)))
        finally:
            os.close(above)

    def _unmark(self) -> None:
        for mark in ("whole", "cleared"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self._place}/{mark}")
        self._sync()

    def _note(self, mark: str, times: os.stat_result | None = None) -> None:
        fd = os.open(f"{self._place}/{mark}", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            if times is not None:
                os.utime(fd, ns=(times.st_atime_ns, times.st_mtime_ns))
            os.fsync(fd)
        finally:
            os.close(fd)
        self._sync()

    def _sync(self) -> None:
        fd = os.open(self._place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
