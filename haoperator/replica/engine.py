# SPDX-License-Identifier: Apache-2.0
"""One node's replicator: its role, its record, its stream, its directories.

Everything that changes role, stream or record happens under one lock, `_decide`, with
the gate of the data path closed and nothing in flight; the record is durable before
anything that it promises can be observed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from haoperator.core.generation import Relation, compare
from haoperator.core.record import DataRecord
from haoperator.core.status import Role, Stream
from haoperator.replica import _hotpath, handshake, nodelog, wire
from haoperator.replica.connector import Connector
from haoperator.replica.directory import Directory
from haoperator.replica.listener import Listener
from haoperator.replica.nodes import NodeIds
from haoperator.replica.outgoing import Outgoing, Phase
from haoperator.replica.record import RecordStore
from haoperator.replica.resync import Interrupted, Progress, Resync
from haoperator.replica.settings import Settings
from haoperator.replica.standby import StandbySession

QUIESCE_MS = 10_000
HANDOVER_MS = 3_000
PULSE_SECONDS = 0.5
CACHES_SECONDS = 2.0
"""How long a new primary waits for the kernel to drop what it knew of the standby."""

log = logging.getLogger(__name__)


class Refused(Exception):
    """The replicator does not do what the operator asked for. Nothing has changed."""


class Engine:
    """The replicator without systemd and without the bus."""

    def __init__(self, settings: Settings, changed: Callable[[], None] = lambda: None) -> None:
        self.settings = settings
        self._changed = changed
        self._decide = threading.RLock()
        self._records = RecordStore(settings.record_path)
        self._records.forget_temporary()
        self.hot = _hotpath.HotPath()
        self._outgoing = Outgoing(self.hot)
        self._ids = NodeIds()
        for name, _ in settings.directories:
            self._ids.used(nodelog.last_id(self._node_log(name)))
        self.directories: dict[str, Directory] = {}
        self.role = Role.SECONDARY
        self.stream = Stream.DISCONNECTED
        self.refusal = ""
        """Why the peer does not replicate with us, if it does not."""
        self.unmounted: Callable[[str], None] = lambda _: None
        """Told when a directory was given back."""
        self._token = b""
        self._standby: StandbySession | None = None
        self._resync: Resync | None = None
        self._progress: dict[str, Progress] = {}
        self._last_heard = 0.0
        self._listener = Listener(settings, self._greeted)
        self._connector = Connector(settings, self)
        self.hot.set_gate(_hotpath.GATE_READ_ONLY)

    # Beginning and state.

    def start(self) -> None:
        """Listen and, as a primary, connect. Directories may come before or after."""
        threading.Thread(target=self._pulse, name="pulse", daemon=True).start()
        self._listener.start()
        self._connector.start()

    @property
    def heard(self) -> float:
        """When the peer's replicator was heard last, by time.monotonic; 0 for never."""
        session = self._standby
        on_stream = max(self.hot.heard(), session.applier.heard() if session else 0.0)
        return max(self._last_heard, on_stream)

    def peer_answers(self) -> None:
        """The peer's replicator has just proved that it lives."""
        self._last_heard = time.monotonic()
        self._changed()

    @property
    def record(self) -> DataRecord:
        return self._records.record

    def directories_json(self) -> str:
        """The bus property `Directories`."""
        return json.dumps([self._describe(name, path) for name, path in self.settings.directories])

    def _describe(self, name: str, path: str) -> dict[str, Any]:
        progress = self._progress.get(name, Progress())
        synced = self.stream in (Stream.SYNCED, Stream.HANDED_OVER)
        return {
            "name": name,
            "path": path,
            "mounted": name in self.directories,
            "state": self.stream.value,
            "out_of_sync_bytes": 0 if synced else max(0, progress.total - progress.compared),
            "resync_progress": 1.0 if synced else round(progress.share, 4),
            "resync_copied_bytes": progress.copied,
            "resync_compared_bytes": progress.compared,
        }

    def _put(self, **changes: Any) -> None:
        self._records.put(replace(self._records.record, **changes))

    def _say(self, role: Role | None = None, stream: Stream | None = None) -> None:
        """Take a new role or stream state and announce it."""
        before = (self.role, self.stream)
        self.role = self.role if role is None else role
        self.stream = self.stream if stream is None else stream
        if before != (self.role, self.stream):
            log.info("%s, stream %s (was %s, %s)", self.role, self.stream, *before)
        self._changed()

    def check_alive(self) -> None:
        """Return when decisions can be made; for the watchdog."""
        with self._decide:
            pass

    # Directories.

    def add_directory(
        self, name: str, path: str, fuse_fd: int, root_fd: int, *, restored: bool = False
    ) -> None:
        """Serve a mount. The descriptors are taken over. Raises Refused.

        `restored`: a former process served it; requests that change something wait
        until the operator says what this node is.
        """
        with self._decide:
            names = [known for known, _ in self.settings.directories]
            if name not in names:
                raise Refused(f"no [replicate.{name}] in the configuration")
            if name in self.directories:
                raise Refused(f"{name} is mounted already")
            node_log = nodelog.NodeLog(self._node_log(name))
            directory = Directory(
                name, path, names.index(name), fuse_fd, root_fd, self._outgoing, self._ids, node_log
            )
            if restored and directory.restore() and self.role is Role.SECONDARY:
                self.hot.set_gate(_hotpath.GATE_PARK)
                self._say(role=Role.HELD)
            directory.primary = self.role is Role.PRIMARY
            directory.accepts_writers = self.role is not Role.SECONDARY
            directory.on_unmount = self._unmounted
            self.directories[name] = directory
            directory.start()
            if restored:
                directory.resend()
            self._interrupt_stream()
            self._changed()

    def _node_log(self, name: str) -> Path:
        return self.settings.run_directory / f"nodes-{name}"

    def _unmounted(self, directory: Directory) -> None:
        log.info("%s: unmounted", directory.name)
        with self._decide:
            self._interrupt_stream()
            if self._standby is not None:
                self._end_standby()
            self.directories.pop(directory.name, None)
            directory.close()
            self._changed()
        self.unmounted(directory.name)

    @property
    def complete(self) -> bool:
        """All configured directories are mounted."""
        return len(self.directories) == len(self.settings.directories)

    def _ordered(self) -> list[Directory]:
        return [self.directories[name] for name, _ in self.settings.directories]

    # What the operator asks for.

    def become_primary(self, generation: str, deadline: float, *, force: bool = False) -> None:
        """See the bus interface; `deadline` is in seconds of time.monotonic. Raises Refused."""
        with self._decide:
            if self.role is Role.PRIMARY:
                if generation and generation != self.record.generation:
                    self._begin(generation, deadline)
                return
            self._may_become_primary(generation, force)
            self._end_standby()
            if generation:
                self._store_alone(generation, deadline)
                self._token = b""
            else:
                # Kept only if the peer's copy ends in the same generation: then nobody went
                # on alone, whatever was feared when this one was marked outdated.
                self._put(last_primary=True, up_to_date=True)
            alone = self.record.peer_outdated
            for directory in self.directories.values():
                with directory.namespace:
                    directory.nodes.revalidate()
                directory.primary = directory.accepts_writers = True
            self.hot.set_gate(_hotpath.GATE_PARK)
            self._say(Role.PRIMARY, Stream.ALONE if alone else Stream.HELD)
            if alone:
                self._open_gate()
        self._forget_caches(CACHES_SECONDS)
        self._connector.wake()

    def _may_become_primary(self, generation: str, force: bool) -> None:
        if not self.complete:
            raise Refused("not all replicated directories are mounted")
        if not generation and not self.record.generation:
            raise Refused("there is no generation to keep: this is the first start")
        if force:
            return
        if self.stream in (Stream.SYNCED, Stream.RESYNC):
            raise Refused(f"{self.settings.peer} is primary and connected")
        if not self.record.consistent:
            raise Refused("the data is a mixture: a resync did not finish")

    def continue_alone(self, generation: str, deadline: float) -> None:
        """See the bus interface; `deadline` is in seconds of time.monotonic. Raises Refused."""
        with self._decide:
            if self.role is not Role.PRIMARY:
                raise Refused("this node is not primary")
            if generation == self.record.generation and self.stream is Stream.ALONE:
                return
            self._begin(generation, deadline)

    def _begin(self, generation: str, deadline: float) -> None:
        if self.stream not in (Stream.HELD, Stream.ALONE):
            raise Refused(f"the stream is {self.stream}: the peer need not be left behind")
        if not generation:
            raise Refused("a generation is needed")
        self._close_gate()
        try:
            self._store_alone(generation, deadline)
        except Refused:
            if self.stream is Stream.ALONE:
                self._open_gate()
            raise
        self._token = b""
        self._outgoing.detach()
        self.hot.release(0)
        self._say(stream=Stream.ALONE)
        self._open_gate()

    def _store_alone(self, generation: str, deadline: float) -> None:
        """Begin a generation durably, before the deadline or not at all. Raises Refused.

        Nothing has been written in it yet, so it can be taken back.
        """
        former = self.record
        late = Refused("the permission to go on without the peer has expired")
        if time.monotonic() > deadline:
            raise late
        self._records.put(former.begin(generation))
        if time.monotonic() > deadline:
            self._records.put(former)
            raise late

    def become_secondary(self) -> None:
        """See the bus interface."""
        with self._decide:
            if self.role is Role.SECONDARY:
                return
            was_primary = self.role is Role.PRIMARY
            self.hot.set_gate(_hotpath.GATE_READ_ONLY)
            self.hot.quiesce(HANDOVER_MS)
            handed_over = was_primary and self.stream is Stream.SYNCED and self._hand_over()
            self._cancel_resync()
            self._outgoing.detach()
            self.hot.release(errno.EROFS)
            for directory in self.directories.values():
                directory.become_standby()
            if handed_over:
                self._put(last_primary=False, up_to_date=True)
            self._say(Role.SECONDARY, Stream.LOST if handed_over else Stream.DISCONNECTED)
        self._forget_caches(0)

    def _hand_over(self) -> bool:
        token = secrets.token_bytes(16)
        seq = self._outgoing.submit(0, 0, wire.Handover(token))
        self.hot.flush()
        if not self.hot.wait_acked(seq, HANDOVER_MS):
            log.warning("the peer did not take over within %d ms", HANDOVER_MS)
            return False
        self.hot.wait_synced(0, HANDOVER_MS)
        self._token = token
        return True

    def mark_outdated(self) -> None:
        """See the bus interface. Raises Refused."""
        with self._decide:
            if self.role is not Role.SECONDARY:
                raise Refused(f"this node is {self.role}")
            self._end_standby()
            self._token = b""
            self._put(up_to_date=False)
            self._say(stream=Stream.DISCONNECTED)

    # The gate.

    def _close_gate(self) -> None:
        self.hot.set_gate(_hotpath.GATE_PARK)
        if not self.hot.quiesce(QUIESCE_MS):
            # Somebody hangs in the backing file system: nothing can be promised any more.
            raise RuntimeError("a change has been under way for too long")

    def _open_gate(self) -> None:
        self.hot.set_gate(_hotpath.GATE_OPEN)
        threading.Thread(target=self._serve_parked, name="parked", daemon=True).start()

    def _serve_parked(self) -> None:
        _hotpath.own_umask()
        by_fd = {directory.fuse_fd: directory for directory in self.directories.values()}
        while (parked := self.hot.take_parked()) is not None:
            fuse_fd, index, request = parked
            if not self.hot.handle(fuse_fd, index, request) and fuse_fd in by_fd:
                by_fd[fuse_fd].dispatch(request)

    def _forget_caches(self, patience: float) -> None:
        """Not under a lock, and not in a thread that matters: the kernel may make it wait."""

        def forget() -> None:
            for directory in list(self.directories.values()):
                try:
                    directory.forget_caches()
                except OSError as err:
                    log.warning("%s: %s", directory.name, err.strerror)

        thread = threading.Thread(target=forget, name="caches", daemon=True)
        thread.start()
        thread.join(patience)

    # The stream, as primary. Called by the connector.

    def hello(self) -> dict[str, Any]:
        """What a primary says first."""
        return {
            "cluster": self.settings.cluster,
            "node": self.settings.node,
            "record": self.record.to_json(),
            "directories": [name for name, _ in self.settings.directories],
            "token": self._token.hex(),
        }

    @property
    def wants_knock(self) -> bool:
        """Without a stream, the peer's replicator is asked for signs of life."""
        return self.stream not in (Stream.RESYNC, Stream.SYNCED)

    @property
    def wants_stream(self) -> bool:
        return self.role is Role.PRIMARY and self.complete

    def stream_begins(self, sock: socket.socket, *, resync: bool) -> bool:
        """The peer accepted. False if it is not wanted any more."""
        with self._decide:
            if not self.wants_stream or self.stream not in (Stream.HELD, Stream.ALONE):
                return False
            self._close_gate()
            self._outgoing.detach()
            if resync:
                # The peer's tree is a mixture, durably: it cannot be promoted, so nobody
                # who waited for it need wait any longer, and we may go on by ourselves.
                self._put(peer_outdated=True)
                self.hot.release(0)
            self._token = b""
            self._outgoing.attach(sock.fileno(), Phase.RESYNC if resync else Phase.SYNCED)
            self.refusal = ""
            if resync:
                self._resync = Resync(self._outgoing, self._ordered())
                self._progress = self._resync.progress
                threading.Thread(
                    target=self._run_resync, args=(self._resync,), name="resync", daemon=True
                ).start()
            else:
                self._put(peer_outdated=False)
            self._say(stream=Stream.RESYNC if resync else Stream.SYNCED)
            self._open_gate()
            return True

    def stream_ended(self, *, closed: bool) -> None:
        """The connection is gone. Called once for every `stream_begins` that was true.

        `closed`: by the peer, which lived a moment ago.
        """
        if closed:
            self._last_heard = time.monotonic()
        with self._decide:
            if self.role is not Role.PRIMARY:
                return
            self._cancel_resync()
            if self._outgoing.phase is Phase.SYNCED:
                self.hot.set_gate(_hotpath.GATE_PARK)
                self._say(stream=Stream.HELD)
            elif self._outgoing.phase is Phase.RESYNC:
                self._close_gate()
                self._outgoing.detach()
                self.hot.release(0)
                self._say(stream=Stream.ALONE)
                self._open_gate()

    def hashes(self, seq: int, hashes: bytes) -> None:
        resync = self._resync
        if resync is not None:
            resync.deliver(seq, hashes)

    def refused(self, reason: str) -> None:
        """The peer does not want our stream."""
        if reason != self.refusal:
            log.error("the peer refuses to replicate: %s", reason)
            self.refusal = reason
            self._changed()

    def receive(self) -> wire.Received:
        """The next frame from the standby. Raises OSError when the stream is over."""
        return self.hot.receive(self.settings.detect_ms)

    def _interrupt_stream(self) -> None:
        """What is mounted changed: begin again with the new set."""
        if self._outgoing.attached:
            self._connector.disconnect()
        self._connector.wake()

    def _cancel_resync(self) -> None:
        resync, self._resync = self._resync, None
        if resync is not None:
            resync.cancel()

    def _run_resync(self, resync: Resync) -> None:
        try:
            resync.run()
            while not self._complete_resync(resync):
                resync.run()
        except Interrupted:
            log.info("resync interrupted")
        except Exception:
            log.exception("resync failed")
            self._connector.disconnect()
        finally:
            resync.finish()

    def _complete_resync(self, resync: Resync) -> bool:
        """The last step, with nothing in flight. False: something moved, walk on."""
        synced = self.hot.submit_fsync(wire.Type.SYNCFS, 0, 0, b"", -1, 0, 0)
        self.hot.flush()
        if not self.hot.wait_synced(synced, QUIESCE_MS * 6):
            raise Interrupted
        with self._decide:
            if self._resync is not resync:
                raise Interrupted
            self._close_gate()
            if not resync.done:
                self._open_gate()
                return False
            # From here on a loss of the peer holds writes: it may become up to date.
            self._put(peer_outdated=False)
            self._outgoing.phase = Phase.SYNCED
            lineage = self.record.lineage
            done = wire.Done(lineage.generation.encode(), json.dumps(lineage.history).encode())
            seq = self._outgoing.submit(0, 0, done)
            self.hot.flush()
            self._open_gate()
        if not self.hot.wait_acked(seq, QUIESCE_MS):
            self._connector.disconnect()
            raise Interrupted
        with self._decide:
            if self._resync is not resync:
                raise Interrupted
            self._resync = None
            self._say(stream=Stream.SYNCED)
        return True

    # The stream, as standby.

    def _greeted(self, sock: socket.socket, said: dict[str, Any]) -> None:
        """The peer has proved itself and wants to replicate to us. Takes the socket over."""
        self.peer_answers()
        try:
            if said.get("knock"):
                with sock:
                    handshake.answer(sock, _refuse("knock", "heard"))
                return
            with self._decide:
                verdict, tolerant = self._judge(said)
                if "refuse" in verdict:
                    log.warning("primary refused: %s", verdict["reason"])
                    handshake.answer(sock, verdict)
                    sock.close()
                    return
                self._end_standby()
                if tolerant:
                    self._put(consistent=False, up_to_date=False)
                else:
                    self._put(up_to_date=True, last_primary=False, peer_outdated=False)
                self._token = b""
                roots = [directory.root_fd for directory in self._ordered()]
                self._standby = StandbySession(
                    sock, roots, self, tolerant=tolerant, detect_ms=self.settings.detect_ms
                )
                self._say(stream=Stream.RESYNC if tolerant else Stream.SYNCED)
                handshake.answer(sock, verdict)
                self._standby.start()
        except (OSError, ValueError, KeyError, TypeError) as err:
            log.warning("primary not accepted: %s", err)
            sock.close()

    def _judge(self, said: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """The answer to a primary, and whether a resync follows. Raises ValueError, KeyError."""
        if said["cluster"] != self.settings.cluster or said["node"] != self.settings.peer:
            return _refuse("stranger", f"{said['node']} of {said['cluster']} is not my peer"), True
        if self.role is not Role.SECONDARY:
            return _refuse("not-standby", f"{self.settings.node} is {self.role}"), True
        if said["directories"] != [name for name, _ in self.settings.directories]:
            return _refuse("configuration", "the two configurations differ"), True
        if not self.complete:
            return _refuse("not-mounted", f"{self.settings.node} has not mounted all yet"), True
        theirs = DataRecord.from_json(said["record"])
        relation = compare(self.record.lineage, theirs.lineage)
        if relation in (Relation.DESCENDANT, Relation.DIVERGED):
            reason = (
                "diverged: both nodes wrote without the other"
                if relation is Relation.DIVERGED
                else f"{self.settings.node} has newer data"
            )
            return _refuse(relation.value, reason), True
        token = bytes.fromhex(said["token"])
        if relation is Relation.EQUAL and token and token == self._token and self.record.consistent:
            return {"accept": "synced"}, False
        return {"accept": "resync"}, True

    def _end_standby(self) -> None:
        session, self._standby = self._standby, None
        if session is not None:
            session.close()

    def standby_handed_over(self, session: StandbySession, token: bytes) -> None:
        if session is self._standby:
            self._token = token
            self._say(stream=Stream.HANDED_OVER)

    def standby_resynced(self, session: StandbySession, done: wire.Done) -> None:
        if session is not self._standby:
            raise OSError(errno.ESTALE, "the session was replaced")
        history = json.loads(done.history)
        self._put(
            generation=done.generation.decode("ascii"),
            history=tuple(map(str, history)),
            consistent=True,
            up_to_date=True,
            last_primary=False,
            peer_outdated=False,
        )
        self._say(stream=Stream.SYNCED)

    def standby_failed(self, session: StandbySession, reason: str) -> None:
        log.error("cannot apply what the primary did, this copy is outdated: %s", reason)
        if session is self._standby:
            self._put(up_to_date=False)
            self._say(stream=Stream.DISCONNECTED)

    def standby_ended(self, session: StandbySession, *, closed: bool) -> None:
        if closed:
            self._last_heard = time.monotonic()
        if session is not self._standby or self.stream is Stream.HANDED_OVER:
            return
        if self.stream is Stream.SYNCED:
            self._say(stream=Stream.LOST)
        else:
            self._say(stream=Stream.DISCONNECTED)

    # Signs of life.

    def _pulse(self) -> None:
        ticker = threading.Event()
        while not ticker.wait(PULSE_SECONDS):
            if self._outgoing.attached:
                self.hot.post(wire.Type.PING)
            session = self._standby
            if session is not None:
                session.pulse()
                self._refresh_lingering()
            if self.stream is Stream.RESYNC:
                self._changed()

    def _refresh_lingering(self) -> None:
        for directory in list(self.directories.values()):
            with contextlib.suppress(OSError):
                directory.refresh_lingering()


def _refuse(code: str, reason: str) -> dict[str, Any]:
    return {"refuse": code, "reason": reason}
