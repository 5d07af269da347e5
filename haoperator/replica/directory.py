# SPDX-License-Identifier: Apache-2.0
"""One replicated directory: its mount, its nodes, and the threads that serve it."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import stat
import threading
from collections.abc import Callable

from haoperator.core.status import Role
from haoperator.replica import _hotpath, abi, changing, inflight, reading, sizes
from haoperator.replica.flushing import Held
from haoperator.replica.intent import IntentLog
from haoperator.replica.limits import Crowd
from haoperator.replica.nodelog import LoggedName, Names, NodeLog
from haoperator.replica.nodes import Node, NodeIds, NodeTable
from haoperator.replica.outgoing import Outgoing, Phase
from haoperator.replica.tracking import Tracker

THREADS = 8
SHORT_LOG = 1024 * 1024
"""Bytes of a node log that are always fine."""
CACHE_SECONDS = 3600
"""How long the kernel may keep names and attributes on the primary: nobody else changes them."""

log = logging.getLogger(__name__)


class Directory:
    """A mount and the tree below it.

    `namespace` is the mutex under which names change here and on the stream. `root_fd`
    was opened before the mount and leads below it. `may_cache_writes` is what the
    configuration says, `caches_writes` what the kernel does with this mount (INIT).
    """

    def __init__(
        self,
        name: str,
        path: str,
        index: int,
        fuse_fd: int,
        root_fd: int,
        outgoing: Outgoing,
        ids: NodeIds,
        node_log: NodeLog,
        intent_log: IntentLog,
        crowd: Crowd,
        *,
        may_cache_writes: bool = False,
    ) -> None:
        self.name = name
        self.path = path
        self.index = index
        self.fuse_fd = fuse_fd
        self.root_fd = root_fd
        self.outgoing = outgoing
        self.hot = outgoing.hot
        self.log = node_log
        self._ids = ids
        self.crowd = crowd
        self.namespace = threading.Lock()
        self.nodes = NodeTable(root_fd, ids, node_log, self._dropped)
        self.tracker = Tracker(name, self.nodes, self.hot, intent_log)
        self.primary = False
        self.accepts_writers = False
        self.may_cache_writes = may_cache_writes
        self.caches_writes = False
        self._former_last = 0
        self._kept_from_use: dict[int, int] = {}
        self.opened_to_read: set[Node] = set()
        """On a standby whose kernel caches writes."""
        self.listings = reading.Listings()
        self._lingering: list[Node] = []
        self._alive = THREADS
        self._alive_lock = threading.Lock()

    def start(self, unmounted: Callable[[Directory], None]) -> None:
        """Serve from now on, until the directory is unmounted: the last thread tells it."""
        self._unmounted = unmounted
        threading.Thread(target=self._begin, name=f"{self.name}/left", daemon=True).start()

    def _begin(self) -> None:
        """First what a former process left: what the kernel forgot then, it may know again."""
        _hotpath.own_umask()
        while (request := self.hot.next_left(self.fuse_fd)) is not None:
            if not self.hot.handle(self.fuse_fd, self.index, request):
                self.dispatch(request)
        for number in range(THREADS):
            threading.Thread(target=self._serve, name=f"{self.name}/{number}", daemon=True).start()

    @property
    def cache_seconds(self) -> int:
        return CACHE_SECONDS if self.primary else 0

    def data_fd(self, node: Node) -> int:
        """The descriptor that the data path uses; opens it. The namespace mutex is held."""
        fd = self.hot.fd(node.id)
        if fd >= 0:
            return fd
        if not node.regular:
            raise OSError(errno.EINVAL, "not a regular file")
        flags = os.O_CLOEXEC | os.O_NOATIME
        try:
            fd = os.open(node.magic, os.O_RDWR | flags)
        except PermissionError:  # chattr +i and the like
            fd = os.open(node.magic, os.O_RDONLY | flags)
        self.hot.set_fd(node.id, fd)
        return fd

    def close_data_fd(self, node: Node) -> None:
        fd = self.hot.set_fd(node.id, -1)
        if fd >= 0:
            os.close(fd)

    def keep_from_use(self, node: Node) -> None:
        """The data path does not find its descriptor any more. It stays open while the node
        lives: somebody may be reading from it."""
        fd = self.hot.set_fd(node.id, -1)
        if fd >= 0:
            self._kept_from_use[node.id] = fd

    def agreed(self, minor: int, *, caches_writes: bool) -> None:
        """INIT: a new mount begins."""
        self._let_cache_writes(caches_writes)
        self.log.begin(minor, writeback=caches_writes)

    def _let_cache_writes(self, caches_writes: bool) -> None:
        if caches_writes != self.may_cache_writes:
            log.warning(
                "%s: the kernel %s writes until it is mounted anew",
                self.name,
                "caches" if caches_writes else "does not cache",
            )
        self.caches_writes = caches_writes
        self.hot.set_kernel_times(self.index, caches_writes)

    def held_back(self) -> Held | None:
        """Where the kernel may have something that was written and not been here yet.

        Only a file that is open can have such pages. After a restart it is not known which are.
        """
        if not self.caches_writes:
            return None
        with self.namespace:
            paths = [
                self.nodes.path(node)
                for node in self.nodes
                if node.regular
                and not node.former
                and (node.writers or node.id <= self._former_last)
            ]
        files = [path for path in paths if path]
        return Held(self.path, files) if files else None

    def require_nameless(self, node: Node) -> None:
        """A node without a known name must not be named: else the peer would miss a change."""
        if self.outgoing.phase is Phase.SYNCED and os.fstat(node.fd).st_nlink:
            raise OSError(errno.EIO, "no name of the file is known, the peer cannot be told")

    def notify(self, code: int, body: bytes) -> None:
        """Tell the kernel something. Hold no lock: it may wait for a request of ours."""
        head = abi.OUT_HEADER.pack(abi.OUT_HEADER.size + len(body), code, 0)
        try:
            os.write(self.fuse_fd, head + body)
        except OSError as err:
            # ENOENT: it does not know the node; ENOTDIR, ENOTEMPTY, EBUSY: it keeps the name
            if err.errno in (errno.ENODEV, errno.EBADF):
                raise

    def attributes_changed(self, node: Node) -> None:
        """Let the kernel ask for the attributes of a file again. It does not wait for that."""
        self.notify(abi.NOTIFY_INVAL_INODE, abi.INVAL_INODE.pack(node.id, -1, 0))

    def become(self, role: Role) -> None:
        """Answer as a node of this role from now on."""
        with self.namespace:
            if role is Role.PRIMARY:
                self.nodes.revalidate()
            elif role is Role.SECONDARY and not self.caches_writes:
                self._lingering = [node for node in self.nodes if node.opens and node.regular]
            if self.caches_writes:
                sizes.change_of_role(self, role)
            self.primary = role is Role.PRIMARY
            self.accepts_writers = role is not Role.SECONDARY

    def refresh_lingering(self) -> None:
        """Drop the page cache of files that were opened when this node was primary.

        Their handles read through the page cache for as long as they are open; what
        they show is at most one pulse old. With write caches there are none (sizes.py).
        """
        if self.caches_writes:
            sizes.tell_growth(self)
        self._lingering = [node for node in self._lingering if node.opens]
        for node in self._lingering:
            self.notify(abi.NOTIFY_INVAL_INODE, abi.INVAL_INODE.pack(node.id, 0, 0))

    def forget_some(self, surplus: int) -> None:
        """Keep descriptors and memory bounded: files that are not open are let go of."""
        with self.namespace:
            idle = (node for node in self.nodes if node.regular and not node.opens)
            names = [name for node in itertools.islice(idle, surplus) for name in node.names]
        for parent, name in names:
            self._forget_name(parent, name)

    def compact_log(self) -> None:
        """Write the node log anew once it is long and most of it is history."""
        if self.log.size < SHORT_LOG + 400 * len(self.nodes):
            return
        with self.namespace:
            self.log.rewrite(
                self._ids.last,
                [
                    (node.id, LoggedName(*name, node.key[1]))
                    for node in self.nodes
                    for name in node.names
                    if not node.dead
                ],
                [node.id for node in self.nodes if node.former and not node.dead],
            )

    def _forget_name(self, parent: int, name: bytes) -> None:
        body = abi.INVAL_ENTRY.pack(parent, len(name), 0) + name + b"\0"
        self.notify(abi.NOTIFY_INVAL_ENTRY, body)

    def forget_caches(self) -> None:
        """Make the kernel ask again for everything that it knows of this directory."""
        with self.namespace:
            known = [(node.id, node.names) for node in self.nodes]
        for node, names in known:
            for parent, name in names:
                self._forget_name(parent, name)
            self.notify(abi.NOTIFY_INVAL_INODE, abi.INVAL_INODE.pack(node, 0, 0))

    def dispatch(self, request: bytes) -> None:
        """Serve one request that the data path does not serve by itself."""
        header = abi.Header._make(abi.IN_HEADER.unpack_from(request))
        body = request[abi.IN_HEADER.size : header.length - 8 * header.extension]
        try:
            if header.opcode in changing.OPCODES:
                changing.serve(self, header, body, request)
            elif header.opcode in (abi.Op.READ, abi.Op.WRITE, abi.Op.FSYNC):
                self._prepare(header, request)
            else:
                self._read(header, body)
        except OSError as err:
            self.answer(header, err.errno or errno.EIO)
        except Exception:
            log.exception("%s: request %d failed", self.name, header.opcode)
            self.answer(header, errno.EIO)

    def _read(self, header: abi.Header, body: bytes) -> None:
        handler = reading.HANDLERS.get(header.opcode)
        if handler is None:
            self.answer(header, errno.ENOSYS)
            return
        answer = handler(self, header, body)
        if answer is not None:
            self.answer(header, 0, answer)
        else:
            self.hot.over(self.fuse_fd, header.unique)

    def answer(self, header: abi.Header, error: int, data: bytes = b"") -> None:
        self.hot.answer(self.fuse_fd, header.unique, error, data)

    def _prepare(self, header: abi.Header, request: bytes) -> None:
        """Give the data path what it lacks for this request, then let it do it."""
        changes = header.opcode == abi.Op.WRITE or (
            header.opcode == abi.Op.FSYNC and self.accepts_writers
        )
        for _ in range(100):
            if changes and not self.hot.enter(self.fuse_fd, self.index, request):
                return
            try:
                with self.namespace:
                    nodes = self.nodes
                    node = nodes.current(header.node) if changes else nodes.get(header.node)
                    self.data_fd(node)
                    if changes:
                        self.outgoing.bind(self, node)
                    if header.opcode == abi.Op.WRITE:
                        self._note(node, request)
            finally:
                if changes:
                    self.hot.leave()
            if self.hot.handle(self.fuse_fd, self.index, request):
                return
            # the stream changed in between
        raise OSError(errno.EIO, "the stream does not stand still")

    def _note(self, node: Node, request: bytes) -> None:
        _, offset, size, *_ = abi.WRITE_IN.unpack_from(request, abi.IN_HEADER.size)
        self.tracker.written(node, offset, offset + size)

    def _dropped(self, node: Node) -> None:
        self.outgoing.dropped(self, node)
        self.opened_to_read.discard(node)
        for fd in (self.hot.drop(node.id), self._kept_from_use.pop(node.id, -1)):
            if fd >= 0:
                os.close(fd)

    def _serve(self) -> None:
        _hotpath.own_umask()
        identity = inflight.identity(self.name)
        while True:
            try:
                request = self.hot.serve(self.fuse_fd, self.index, identity)
            except OSError as err:
                if err.errno not in (errno.ENODEV, errno.ECONNABORTED, errno.EBADF):
                    log.error("%s: /dev/fuse: %s", self.name, err.strerror)
                break
            self.dispatch(request)
        with self._alive_lock:
            self._alive -= 1
            last = self._alive == 0
        if last:
            self._unmounted(self)

    def close(self) -> None:
        """After the unmount: give back what the directory held."""
        self.hot.forget_fuse(self.fuse_fd)
        for node in self.nodes:
            for fd in (self.hot.drop(node.id), self._kept_from_use.pop(node.id, -1)):
                if fd >= 0:
                    os.close(fd)
            if node is not self.nodes.root:
                os.close(node.fd)
        self.log.close(remove=True)
        os.close(self.fuse_fd)
        os.close(self.root_fd)

    def restore(self) -> None:
        """Take up the nodes of a former process on the same mount, as far as names lead."""
        former = self.log.replay()
        if former is None:
            return
        self._let_cache_writes(former.writeback)
        self._former_last = former.last
        waiting = list(former.nodes)
        while waiting:  # those above come first, however deep the tree is
            left = [node for node in waiting if not self._restore(node, former)]
            if len(left) == len(waiting):
                break
            waiting = left
        for node in former.nodes:  # further names, in directories that came later
            self._restore(node, former)
        if self.caches_writes and not former.wrote:
            sizes.give_up_all(self)  # what the kernel was told is not known

    def _restore(self, node_id: int, former: Names) -> bool:
        """By those of its names that lie in directories which are known. True if it is known."""
        for parent_id, name, inode in former.nodes[node_id]:
            parent = self.nodes.known(parent_id)
            if parent is None or not stat.S_ISDIR(parent.kind):
                continue
            try:
                fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent.fd)
            except OSError:
                continue
            if os.fstat(fd).st_ino != inode:
                os.close(fd)
                continue
            node = self.nodes.known(node_id)
            if node is not None:
                os.close(fd)
            elif node_id in former.given_up:
                node = self.nodes.adopt_former(fd, node_id)
            else:
                node, _ = self.nodes.adopt(fd, node_id)
            if node.id == node_id:
                if not node.lookups:
                    node.lookups, node.unknown_lookups = 1, True
                self.nodes.add_name(node, parent, name)
        return self.nodes.known(node_id) is not None
