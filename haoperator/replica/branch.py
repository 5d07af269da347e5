# SPDX-License-Identifier: Apache-2.0
"""A branch that lost a split brain is kept aside before a resync changes anything of it.

First, `take`: names and attributes go to a list, and each regular file gets one more link, in
`files`, by the number of its inode. That copies nothing. From then on, whatever is removed,
replaced or moved in the tree is still there. What changes the content of a file in place needs
a copy first (`release`; elsewhere, if it is large): as long as the link means the same inode,
its content is *shared* with the tree. So what a crash leaves is never in doubt, and what was
kept once is kept as it was.

Last, `compare`, when the tree is the winner's: what is the same goes, what differs is listed.
Until then, the links of the tree's files are one more than the tree has names for them.

Where nothing beside the directory is on its file system, contents are copied from the start.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from haoperator.replica import _hotpath
from haoperator.replica.beneath import remove_tree
from haoperator.replica.manifest import (
    ABOUT,
    DIFFERENCES,
    FILES,
    MANIFEST,
    About,
    Entry,
    What,
    beside,
    differing_attributes,
    entries,
    entry_of,
)
from haoperator.replica.walking import Found, place, walk

FICLONE = 0x40049409
PIECE = 1024 * 1024
LARGE = 64 * 1024 * 1024
"""Files up to this size are copied while the stream waits, where there are no reflinks."""
MOST_OF_FOREIGN_ROOM = 0.9
"""Of what is free on another file system, which is likely the system's own."""
BUFFER = 256 * 1024

_replacing = threading.Lock()
"""While a copy takes the place of a link: who finds it there may rely on the disk."""

log = logging.getLogger(__name__)


class NotKept(OSError):
    """Something of the branch cannot be kept aside, so it must not be changed."""


class TooLarge(OSError):
    """More would have to be copied than there is time for."""


class Branch:
    """One branch of one replicated directory. Its methods raise OSError."""

    def __init__(
        self,
        name: str,
        root_fd: int,
        id_: str,
        later: Callable[[str, int], None] = lambda name, inode: None,
    ) -> None:
        """`later` is told of content that it takes long to copy: by `release_inode`, elsewhere."""
        self.id = id_
        self.name = name
        self._later = later
        self._root = os.dup(root_fd)
        self.above = Path(f"/proc/self/fd/{self._root}") / beside(name)
        self.place = self.above / id_
        self._files = -1
        with contextlib.suppress(FileNotFoundError):
            self._open_files()

    def __str__(self) -> str:
        return f"{self.name}: branch {self.id}"

    def close(self) -> None:
        """Harmless to repeat."""
        for fd in (self._root, self._files):
            if fd >= 0:
                os.close(fd)
        self._root = self._files = -1

    @property
    def whole(self) -> bool:
        """Whether all of the branch is kept: what is in the tree may change."""
        return (self.place / MANIFEST).exists() or self.compared

    @property
    def open(self) -> bool:
        """Whether it is whole, and this node's data may still be overwritten."""
        return self.whole and not self.compared

    @property
    def compared(self) -> bool:
        return (self.place / DIFFERENCES).exists()

    # Before the resync.

    def take(self, about: About) -> int:
        """Keep all of the tree, in which nothing may change meanwhile. Returns how many names."""
        if self.compared:
            raise NotKept(errno.EEXIST, f"{self} is there already, and compared")
        self.drop()
        try:
            self.above.mkdir(mode=0o700, exist_ok=True)
            self.place.mkdir(mode=0o700)
            (self.place / FILES).mkdir(mode=0o700)
            self._open_files()
            (self.place / ABOUT).write_text(about.to_json(), encoding="ascii")
            count = 0
            with self._new(MANIFEST) as manifest:
                self._require_room()
                for found in walk(self._root):
                    manifest.write(entry_of(*found).to_line())
                    if stat.S_ISREG(found.st.st_mode):
                        self._link(found)
                    count += 1
            _hotpath.syncfs(self._files)
            self._in_place(MANIFEST)
            _sync(self.above)
            _sync(self.above / "..")
        except OSError as err:
            with contextlib.suppress(OSError):
                self.drop()
            raise NotKept(err.errno, f"the losing data cannot be kept aside: {_why(err)}") from err
        return count

    def _open_files(self) -> None:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        fd = os.open(self.place / FILES, flags)
        if self._files >= 0:
            os.close(self._files)
        self._files = fd

    def _require_room(self) -> None:
        """Where contents are copied at once, first see that they fit."""
        if os.fstat(self._root).st_dev == os.fstat(self._files).st_dev:
            return
        need = sum(f.st.st_blocks * 512 for f in walk(self._root) if stat.S_ISREG(f.st.st_mode))
        room = os.fstatvfs(self._files)
        free = room.f_bavail * room.f_frsize
        if need > free * MOST_OF_FOREIGN_ROOM:
            raise OSError(
                errno.ENOSPC,
                "the directory is the top of its file system, so all of it has to be copied: "
                f"{need / 1e6:.1f} MB, but beside it there are {free / 1e6:.1f} MB",
            )

    def _link(self, found: Found) -> None:
        kept = str(found.st.st_ino)
        try:
            os.link(
                found.name,
                kept,
                src_dir_fd=found.parent,
                dst_dir_fd=self._files,
                follow_symlinks=False,
            )
        except FileExistsError:
            return  # by another of its names
        except OSError as err:
            if err.errno not in (errno.EXDEV, errno.EMLINK):
                raise
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME | os.O_CLOEXEC
            source = os.open(found.name, flags, dir_fd=found.parent)
            self._copy(source, kept, durable=False)  # all are synced together

    # While the resync makes the tree the winner's.

    def shares(self, st: os.stat_result) -> bool:
        """Whether the content of this file of the tree is that of the branch too. What it does
        not share it has on disk."""
        with _replacing, contextlib.suppress(FileNotFoundError):
            kept = os.stat(str(st.st_ino), dir_fd=self._files, follow_symlinks=False)
            return (kept.st_dev, kept.st_ino) == (st.st_dev, st.st_ino)
        return False

    def links(self, st: os.stat_result) -> int:
        """How many names the file has in the tree."""
        return st.st_nlink - self.shares(st)

    def release(self, fd: int) -> bool:
        """Before the content of the file at `fd` changes: the branch has it for itself, durably.

        False: it is large and not copied yet, so it must not change. Raises NotKept.
        """
        st = os.fstat(fd)
        if not self.shares(st):
            return True
        try:
            self.release_inode(st.st_ino, most=LARGE)
        except TooLarge:
            self._later(self.name, st.st_ino)
            return False
        except OSError as err:
            path = os.readlink(f"/proc/self/fd/{fd}")
            raise NotKept(
                err.errno, f"{path} differs and cannot be kept aside: {_why(err)}"
            ) from err
        return True

    def release_inode(self, inode: int, *, most: int | None = None) -> None:
        """The same for a file of the branch by its number. Raises TooLarge if more than `most`
        bytes would have to be copied."""
        flags = os.O_RDONLY | os.O_NOATIME | os.O_CLOEXEC
        source = os.open(str(inode), flags, dir_fd=self._files)
        if os.fstat(source).st_ino == inode:
            self._copy(source, str(inode), most)
        else:
            os.close(source)

    def _copy(
        self, source: int, kept: str, most: int | None = None, *, durable: bool = True
    ) -> None:
        """The content of `source`, which is closed, under a name in `files`.

        Two threads may copy the same: the first copy stays, a later one may have met changes.
        """
        new = f"{kept}.{threading.get_native_id()}.new"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            target = os.open(new, flags, 0o600, dir_fd=self._files)
            try:
                copy_content(source, target, most)
                if durable:
                    os.fsync(target)
            finally:
                os.close(target)
            with _replacing:
                if self._is_copied(kept):
                    os.unlink(new, dir_fd=self._files)
                    return
                os.rename(new, kept, src_dir_fd=self._files, dst_dir_fd=self._files)
                if durable:
                    os.fsync(self._files)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(new, dir_fd=self._files)
            raise
        finally:
            os.close(source)

    def _is_copied(self, kept: str) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return os.stat(kept, dir_fd=self._files).st_ino != int(kept)
        return False

    # When it is.

    def compare(self) -> tuple[int, int]:
        """Keep only what differs from the tree; again if it was interrupted. Returns how many
        names that is, and bytes."""
        if not self.compared:
            with self._new(DIFFERENCES) as differences:
                for entry in self._differences():
                    if entry.holds_content:
                        self._own(entry.inode)
                    differences.write(entry.to_line())
            self._in_place(DIFFERENCES)
        count, kept = 0, set[str]()
        for entry in entries(self.place / DIFFERENCES):
            count += 1
            if entry.holds_content:
                kept.add(str(entry.inode))
        size = 0
        for name in os.listdir(self._files):
            if name in kept:
                size += os.stat(name, dir_fd=self._files).st_blocks * 512
            else:
                os.unlink(name, dir_fd=self._files)
        (self.place / MANIFEST).unlink(missing_ok=True)
        _sync(self.place)
        return count, size

    def _own(self, inode: int) -> None:
        """What is kept for good is a name in the tree no more."""
        st = os.stat(str(inode), dir_fd=self._files)
        if st.st_ino == inode and st.st_nlink > 1:
            self.release_inode(inode)

    def _differences(self) -> Iterator[Entry]:
        only_live = b""
        for kept, live in self._side_by_side():
            if live is None:
                assert kept is not None
                yield kept.as_(What.ONLY_KEPT)
                continue
            if kept is None:
                if only_live and live.path.startswith(only_live):
                    continue  # below something that is told of
                only_live = live.path + b"/"
            try:
                now = entry_of(*live)
            except FileNotFoundError:
                continue
            if kept is None:
                yield now.as_(What.ONLY_LIVE)
            elif (what := self._difference(kept, now, live)) is not None:
                yield kept.as_(what)

    def _side_by_side(self) -> Iterator[tuple[Entry | None, Found | None]]:
        """The names of the branch and of the tree, those of both together."""
        kept_ones, live_ones = entries(self.place / MANIFEST), walk(self._root)
        kept, live = next(kept_ones, None), next(live_ones, None)
        while kept is not None or live is not None:
            first = live is None or (kept is not None and place(kept.path) < live.place)
            second = kept is None or (live is not None and live.place < place(kept.path))
            yield None if second else kept, None if first else live
            if not second:
                kept = next(kept_ones, None)
            if not first:
                live = next(live_ones, None)

    def _difference(self, kept: Entry, now: Entry, live: Found) -> What | None:
        if kept.kind != now.kind:
            return What.CONTENT
        if kept.regular:
            same = self._same_content(kept, live)
        else:
            same = (kept.target, kept.device) == (now.target, now.device)
        if not same:
            return What.CONTENT
        return What.ATTRIBUTES if differing_attributes(kept, now) else None

    def _same_content(self, kept: Entry, live: Found) -> bool:
        if kept.inode == live.st.st_ino and self.shares(live.st):
            return True
        if kept.size != live.st.st_size:
            return False
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME | os.O_NONBLOCK | os.O_CLOEXEC
        one = os.open(str(kept.inode), flags, dir_fd=self._files)
        try:
            other = os.open(live.name, flags, dir_fd=live.parent)
            try:
                return same_content(one, other)
            finally:
                os.close(other)
        except FileNotFoundError:
            return False
        finally:
            os.close(one)

    def drop(self) -> None:
        """Remove it; first of all it is no longer whole. Harmless to repeat."""
        for name in (MANIFEST, DIFFERENCES):
            with contextlib.suppress(FileNotFoundError):
                (self.place / name).unlink()
        if not self.place.exists():
            return
        _sync(self.place)
        above = os.open(self.above, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            remove_tree(above, os.fsencode(self.id))
        finally:
            os.close(above)
        with contextlib.suppress(OSError):
            self.above.rmdir()

    # Lists are whole when they have their name.

    @contextlib.contextmanager
    def _new(self, name: str) -> Iterator[IO[str]]:
        with (self.place / f"{name}.new").open("w", BUFFER, encoding="ascii") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())

    def _in_place(self, name: str) -> None:
        (self.place / f"{name}.new").rename(self.place / name)
        _sync(self.place)


def branches(name: str, root_fd: int) -> list[Branch]:
    """All that are kept of a replicated directory, to be closed."""
    above = Path(f"/proc/self/fd/{root_fd}") / beside(name)
    with contextlib.suppress(FileNotFoundError):
        return [Branch(name, root_fd, each) for each in sorted(os.listdir(above))]
    return []


def copy_content(source: int, target: int, most: int | None = None) -> None:
    """By reference where the file system can, else what is no hole, at `most` so many bytes.

    Raises TooLarge, OSError.
    """
    with contextlib.suppress(OSError):
        fcntl.ioctl(target, FICLONE, source)
        return
    st = os.fstat(source)
    if most is not None and st.st_blocks * 512 > most:
        raise TooLarge(errno.EFBIG, "copying it takes long")
    size, at = st.st_size, 0
    os.ftruncate(target, size)
    while at < size:
        try:
            at = os.lseek(source, at, os.SEEK_DATA)
        except OSError as err:
            if err.errno == errno.ENXIO:  # a hole up to the end
                return
            raise
        end = os.lseek(source, at, os.SEEK_HOLE)
        while at < end:
            data = os.pread(source, min(PIECE, end - at), at)
            if not data:
                return
            written = os.pwrite(target, data, at)
            at += written


def same_content(one: int, other: int) -> bool:
    at = 0
    while True:
        mine, theirs = os.pread(one, PIECE, at), os.pread(other, PIECE, at)
        if mine != theirs:
            return False
        if not mine:
            return True
        at += len(mine)


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _why(err: OSError) -> str:
    return err.strerror or str(err)
