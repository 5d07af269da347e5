# SPDX-License-Identifier: Apache-2.0
"""One node's replicator, without systemd and without the bus: its parts, and its commands."""

from __future__ import annotations

import errno
import json
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from haoperator.core.record import DataRecord
from haoperator.core.status import Role, Stream
from haoperator.replica._hotpath import HotPath
from haoperator.replica.copying import Progress
from haoperator.replica.directory import Directory
from haoperator.replica.gate import Gate, Stuck
from haoperator.replica.inflight import Requests
from haoperator.replica.intent import IntentLog
from haoperator.replica.mounts import CACHES_SECONDS, Mounts
from haoperator.replica.outgoing import Outgoing
from haoperator.replica.periods import Periods
from haoperator.replica.primary import PrimarySide
from haoperator.replica.record import RecordStore
from haoperator.replica.settings import ReplicatedDirectory, Settings
from haoperator.replica.standby import StandbySide
from haoperator.replica.standing import Refused, Standing

HOUSEKEEP_SECONDS = 0.5
LEFT_BEHIND_SECONDS = 3.0
"""How long a standby that marked itself outdated refuses a primary that has not gone on alone
yet: more than its processes need to end, when it leaves."""

log = logging.getLogger(__name__)


class Engine:
    """The commands are those of the bus interface (docs/architecture.md, section 4)."""

    def __init__(
        self,
        settings: Settings,
        changed: Callable[[], None] = lambda: None,
        unmounted: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.settings = settings
        self.hot = HotPath()
        self.requests = Requests(self.hot)
        self._standing = Standing(RecordStore(settings.record_path), changed)
        outgoing = Outgoing(self.hot)
        intent_log = IntentLog(settings.record_path.with_name("intent-log"))
        self._mounts = Mounts(settings, outgoing, intent_log)
        self._gate = Gate(self.hot, self._mounts.dispatch)
        self._periods = Periods(intent_log, self._mounts, self.hot)
        self._primary = PrimarySide(
            settings, self._standing, self._mounts, outgoing, self._gate, self._periods
        )
        self._standby = StandbySide(settings, self._standing, self._mounts, self._periods)
        if not intent_log.trusted and self._standing.record.base:
            log.error("the intent log is missing or damaged: everything will be compared")
            self._standing.put(base="")
        self._unmounted = unmounted

    def start(self) -> None:
        """Listen, and look for the peer. Directories may come before or after."""
        threading.Thread(target=self._pulse, name="pulse", daemon=True).start()
        threading.Thread(target=self._housekeep, name="housekeep", daemon=True).start()
        threading.Thread(target=self._checkpoint, name="checkpoint", daemon=True).start()
        self._standby.listener.start()
        self._primary.connector.start()

    # What it is.

    @property
    def role(self) -> Role:
        return self._standing.role

    @property
    def stream(self) -> Stream:
        return self._standing.stream

    @property
    def record(self) -> DataRecord:
        return self._standing.record

    @property
    def refusal(self) -> str:
        """Why the peer does not replicate with us, if it does not."""
        return self._standing.refusal

    @property
    def heard(self) -> float:
        """When the peer's replicator was heard last, by time.monotonic; 0 for never."""
        return max(self._standing.heard, self.hot.heard(), self._standby.heard)

    def directories_json(self) -> str:
        """The bus property `Directories`."""
        return json.dumps([self._describe(each) for each in self.settings.directories])

    def _describe(self, directory: ReplicatedDirectory) -> dict[str, Any]:
        name = directory.name
        side = self._primary if self.role is Role.PRIMARY else self._standby
        progress = side.progress.get(name, Progress())
        synced = self.stream in (Stream.SYNCED, Stream.HANDED_OVER)
        return {
            "name": name,
            "path": directory.path,
            "durability": directory.durability.value,
            "mounted": name in self._mounts,
            "state": self.stream.value,
            "out_of_sync_bytes": 0 if synced else max(0, progress.total - progress.compared),
            "resync_progress": 1.0 if synced else round(progress.share, 4),
            "resync_copied_bytes": progress.copied,
            "resync_compared_bytes": progress.compared,
            "snapshot_taken_at": None if synced else self._standby.fallback.taken_at,
        }

    @property
    def yielded_json(self) -> str:
        """The bus property `Yielded`."""
        return self._standby.aside.to_json()

    @property
    def verification_json(self) -> str:
        """The bus property `Verification`."""
        return self._primary.verifier.report.to_json()

    def check_alive(self) -> None:
        """Return when decisions can be made; for the watchdog."""
        with self._standing.decide:
            pass

    # Directories come and go.

    def add_directory(
        self, name: str, path: str, fuse_fd: int, root_fd: int, *, restored: bool = False
    ) -> None:
        """Serve a mount. The descriptors are taken over, unless it raises Refused.

        `restored`: a former process served it; requests that change something wait
        until the operator says what this node is.
        """
        with self._standing.decide:
            directory = self._mounts.take(name, path, fuse_fd, root_fd)
            if restored:
                directory.restore()
                self.requests.adopt(name, fuse_fd)
            if restored and self.role is Role.SECONDARY:
                self._gate.park()
                self._standing.say(role=Role.HELD)
            directory.become(self.role)
            if self.role is Role.PRIMARY:
                self._periods.begin()
            directory.start(self._directory_unmounted)
            self._primary.interrupt()
            if self._mounts.complete:
                self._standby.aside.tidy()
            self._standing.changed()

    def _directory_unmounted(self, directory: Directory) -> None:
        log.info("%s: unmounted", directory.name)
        with self._standing.decide:
            self._primary.interrupt()
            self._standby.end()
            self._mounts.give_back(directory)
            if self.role is Role.SECONDARY and self.stream is not Stream.HANDED_OVER:
                self._standing.say(stream=Stream.DISCONNECTED)
            self._standing.changed()
        self._unmounted(directory.name)

    # Commands.

    def become_primary(self, generation: str, deadline: float, *, force: bool = False) -> None:
        """`deadline` is in seconds of time.monotonic. Raises Refused."""
        standing = self._standing
        with standing.decide:
            if self.role is Role.PRIMARY:
                if generation and generation != self.record.generation:
                    self._leave_behind(generation, deadline)
                return
            self._may_become_primary(generation, force)
            if generation and not force:
                self._require_unmoved(deadline)
            self._standby.end()
            if not self.record.consistent:
                self._go_back()
            if generation:
                standing.begin(generation, deadline)
            else:
                # Kept only if the peer's copy ends in the same generation: then nobody went
                # on alone, whatever was feared when this one was marked outdated.
                standing.put(last_primary=True, up_to_date=True)
            self._mounts.become(Role.PRIMARY)
            self._periods.begin()
            self._gate.park()
            alone = self.record.peer_outdated
            standing.say(Role.PRIMARY, Stream.ALONE if alone else Stream.HELD)
            if alone:
                self._gate.open()
            self._standby.aside.tidy()
        # First: the kernel may wait for a held change before it forgets, and that for the stream.
        self._primary.connector.wake()
        self._mounts.forget_caches(CACHES_SECONDS)

    def _may_become_primary(self, generation: str, force: bool) -> None:
        if not self._mounts.complete:
            raise Refused("not all replicated directories are mounted")
        if not generation and not self.record.generation:
            raise Refused("there is no generation to keep: this is the first start")
        if force:
            return
        if self.stream in (Stream.SYNCED, Stream.RESYNC):
            raise Refused(f"{self.settings.peer} is primary and connected")
        if not self.record.consistent:
            raise Refused("the data is a mixture: a resync did not finish")

    def _require_unmoved(self, deadline: float) -> None:
        """Permission to write without the peer is given for what the stream was then: a peer
        that came back meanwhile may be complete, whatever was decided about it."""
        given = deadline - self.settings.permission_seconds
        if given < self._standing.moved and time.monotonic() <= deadline:
            raise Refused(f"the stream has become {self.stream} since this was decided")

    def _go_back(self) -> None:
        """Forced on a mixture: to the state before the resync, where that was kept."""
        taken_at = self._standby.fallback.taken_at
        if taken_at is None:
            log.warning("forced on a mixture: parts of the data are older than others")
            return
        then = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(taken_at))
        log.warning("forced on a mixture: the data goes back to the snapshot of %s", then)
        self._standing.put(base="")
        self._standby.fallback.go_back()

    def continue_alone(self, generation: str, deadline: float) -> None:
        """`deadline` is in seconds of time.monotonic. Raises Refused."""
        with self._standing.decide:
            if self.role is not Role.PRIMARY:
                raise Refused("this node is not primary")
            if generation == self.record.generation and self.stream is Stream.ALONE:
                return
            self._leave_behind(generation, deadline)

    def _leave_behind(self, generation: str, deadline: float) -> None:
        if self.stream not in (Stream.HELD, Stream.ALONE):
            raise Refused(f"the stream is {self.stream}: the peer need not be left behind")
        if not generation:
            raise Refused("a generation is needed")
        self._require_unmoved(deadline)
        self._gate.close()
        try:
            self._standing.begin(generation, deadline)
        except Refused:
            if self.stream is Stream.ALONE:
                self._gate.open()
            raise
        self._primary.release(0)
        self._periods.lose_peer()
        self._standing.say(stream=Stream.ALONE)
        self._gate.open()

    def flush(self) -> None:
        """Before leaving in order: what was written and not synced is lost in a crash only.

        Bounded. While changes wait for a decision they cannot be flushed.
        """

        def worth_it() -> bool:
            return self.role is Role.PRIMARY and self.stream is not Stream.HELD

        if worth_it():
            self._mounts.flush(worth_it)

    def become_secondary(self) -> None:
        """Raises Stuck while a change hangs in the backing file system."""
        standing = self._standing
        self.flush()
        with standing.decide:
            if self.role is Role.SECONDARY:
                return
            self._gate.refuse()
            handed_over = self.stream is Stream.SYNCED and self._primary.hand_over()
            self._primary.release(errno.EROFS)
            self._periods.end()
            self._mounts.become(Role.SECONDARY)
            if handed_over:
                standing.put(last_primary=False, up_to_date=True)
            standing.say(Role.SECONDARY, Stream.LOST if handed_over else Stream.DISCONNECTED)
        self._mounts.forget_caches(0)

    def mark_outdated(self) -> None:
        """Raises Refused."""
        with self._standing.decide:
            if self.role is not Role.SECONDARY:
                raise Refused(f"this node is {self.role}")
            self._standby.end()
            self._standby.left_behind_until = time.monotonic() + LEFT_BEHIND_SECONDS
            self._standing.token = b""
            self._standing.give_up()
            self._standing.say(stream=Stream.DISCONNECTED)

    def yield_branch(self, to: str) -> None:
        """This node's data gives way to the peer's, which has the generation `to`. It is kept
        aside before a resync overwrites it. Raises Refused."""
        with self._standing.decide:
            if self.role is not Role.SECONDARY:
                raise Refused(f"this node is {self.role}")
            if not to or to in self.record.lineage:
                raise Refused(f"this node's data has not diverged from generation {to!r}")
            self._standby.end()
            self._standing.token = b""
            self._standing.put(up_to_date=False, base="", yielded_to=to)
            self._standing.say(stream=Stream.DISCONNECTED)

    def verify(self, *, repair: bool = False) -> None:
        """Begin to compare both copies; `verification_json` tells the rest. Raises Refused."""
        with self._standing.decide:
            self._primary.verify(repair=repair)

    # Signs of life.

    def _pulse(self) -> None:
        ticker = threading.Event()
        while not ticker.wait(self.settings.pulse_seconds):
            self._primary.pulse()
            self._standby.pulse()
            if self.stream is Stream.RESYNC or self._primary.verifier.running:
                self._standing.changed()

    def checkpoint(self) -> None:
        """Retire from the intent log what the disks of both nodes have. Raises OSError, Stuck."""
        self._primary.checkpoint()

    def _checkpoint(self) -> None:
        """Apart from everything else, because disks may make it wait."""
        ticker = threading.Event()
        while not ticker.wait(self.settings.checkpoint_seconds):
            try:
                self.checkpoint()
            except (OSError, Stuck) as err:
                log.warning("nothing is retired from the intent log: %s", err)

    def _housekeep(self) -> None:
        """Apart from the signs of life, because the kernel may make it wait."""
        told = False
        while True:
            self._mounts.housekeep(self.role, HOUSEKEEP_SECONDS)
            if not told and self.hot.state()["unkept"]:
                told = True
                log.warning("too many requests in flight: a restart would not know all of them")
