# SPDX-License-Identifier: Apache-2.0
"""The primary's side of the stream: attached, resynchronised, lost.

A stream begins, ends and changes its meaning only with the gate closed, so that every
change is either wholly before or wholly after.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Sequence
from typing import Any

from haoperator.core.status import Role, Stream
from haoperator.replica import _hotpath, frames, wire
from haoperator.replica.asking import Stopped
from haoperator.replica.connector import Connector
from haoperator.replica.copying import Progress
from haoperator.replica.courier import Interrupted
from haoperator.replica.difference import Difference
from haoperator.replica.gate import Gate, Stuck
from haoperator.replica.handshake import Meeting
from haoperator.replica.marks import EVERYTHING, Kind, Mark
from haoperator.replica.mounts import Mounts
from haoperator.replica.outgoing import Outgoing, Phase
from haoperator.replica.periods import Periods
from haoperator.replica.priority import be_nice
from haoperator.replica.resync import Resync
from haoperator.replica.settings import Settings
from haoperator.replica.standing import Refused, Standing
from haoperator.replica.verifier import Verifier

HANDOVER_MS = 3_000
DONE_MS = 10_000
SYNCFS_MS = 60_000
"""How long the standby's disks may take to hold all that a resync brought."""

log = logging.getLogger(__name__)


class PrimarySide:
    """What happens between a primary and its standby, as the primary sees it."""

    def __init__(
        self,
        settings: Settings,
        standing: Standing,
        mounts: Mounts,
        outgoing: Outgoing,
        gate: Gate,
        periods: Periods,
    ) -> None:
        self._settings = settings
        self._periods = periods
        self._standing = standing
        self._mounts = mounts
        self._outgoing = outgoing
        self._hot = outgoing.hot
        self._gate = gate
        self._resync: Resync | None = None
        self.progress: dict[str, Progress] = {}
        """By directory, of the last resync."""
        self.verifier = Verifier(outgoing, mounts, standing.changed, self.begin_again)
        self.connector = Connector(settings, self)

    # What the connector asks and tells.

    @property
    def wants_stream(self) -> bool:
        return self._standing.role is Role.PRIMARY and self._mounts.complete

    @property
    def wants_knock(self) -> bool:
        """Without a stream, the peer's replicator is asked for signs of life."""
        return self._standing.stream not in (Stream.RESYNC, Stream.SYNCED)

    def hello(self) -> dict[str, Any]:
        """What a primary says first."""
        return {
            "record": self._standing.record.to_json(),
            "directories": self._mounts.names,
            "token": self._standing.token.hex(),
            "base": self._standing.record.base,
        }

    def peer_answers(self) -> None:
        self._standing.peer_lives()

    def refused(self, reason: str) -> None:
        """The peer does not want our stream, or nothing to do with us; `""`: it talks to us."""
        if reason != self._standing.refusal:
            if reason:
                log.error("the peer refuses to replicate: %s", reason)
            self._standing.refusal = reason
            self._standing.changed()

    def receive(self) -> wire.Received:
        """The next frame from the standby. Raises OSError when the stream is over."""
        return self._hot.receive(self._settings.detect_ms)

    def hashes(self, seq: int, hashes: bytes) -> None:
        resync = self._resync
        if resync is not None:
            resync.courier.deliver(seq, hashes)
        self.verifier.deliver(seq, frames.Hashes(hashes))

    def checked(self, seq: int, checked: frames.Checked) -> None:
        self.verifier.deliver(seq, checked)

    def marks(self, part: frames.Marks) -> None:
        """What the standby noted. Raises Rubbish."""
        resync = self._resync
        if resync is not None:
            resync.courier.deliver_marks(part)

    def stream_begins(self, meeting: Meeting) -> bool:
        """The peer accepted, in one of connector.MODES.

        False if it is not wanted any more, or not what was asked for.
        """
        standing, mode = self._standing, str(meeting.answer["accept"])
        resync = mode != "synced"
        with standing.decide:
            if not self.wants_stream or standing.stream not in (Stream.HELD, Stream.ALONE):
                return False
            if meeting.asked != self.hello():  # a generation began meanwhile
                return False
            standing.put(peer_outdated=resync)
            self._close_gate()
            self._outgoing.detach()
            # Before a resync: the peer's tree is a mixture, durably, it cannot be promoted.
            # So nobody who waited for it need wait any longer. Else nobody has waited yet.
            self._hot.release(0)
            standing.token = b""
            standing.refusal = ""
            self._outgoing.attach(meeting.channel, Phase.RESYNC if resync else Phase.SYNCED)
            if resync:
                self._periods.lose_peer()
                self._begin_resync(partial=mode == "noted")
            else:
                self._periods.peer_has_everything(on_disk=False)
            standing.say(stream=Stream.RESYNC if resync else Stream.SYNCED)
            self._gate.open()
            return True

    def _close_gate(self) -> None:
        """Raises Stuck; who wrote without the peer then goes on doing so."""
        try:
            self._gate.close()
        except Stuck:
            if self._standing.stream is Stream.ALONE:
                self._gate.open()
            raise

    def stream_ended(self, *, closed: bool) -> None:
        """The connection is gone. Called once for every `stream_begins` that was true.

        `closed`: by the peer, which lived a moment ago.
        """
        standing = self._standing
        with standing.decide:
            if closed:
                standing.peer_lives()
            if standing.role is not Role.PRIMARY:
                return
            self._cancel_resync()
            self.verifier.stop("the stream to the standby ended")
            if self._outgoing.phase is Phase.SYNCED:
                self._gate.park()
                standing.say(stream=Stream.HELD)
            elif self._outgoing.phase is Phase.RESYNC:
                self._gate.close()
                self.release(0)
                standing.say(stream=Stream.ALONE)
                self._gate.open()

    # What the commands do with it.

    def interrupt(self) -> None:
        """What is mounted changed: begin again with the new set."""
        self.verifier.stop("a replicated directory was mounted or unmounted")
        if self._outgoing.attached:
            self.connector.disconnect()
        self.connector.wake()

    def release(self, error: int) -> None:
        """Give up the stream; those who wait for the peer get their answer, or `error`."""
        self._cancel_resync()
        self.verifier.stop("this node is not the primary any more")
        self._outgoing.detach()
        self._hot.release(error)

    def hand_over(self) -> bool:
        """Tell a synced peer that nothing is missing. True if it knows, within a bound."""
        self.verifier.stop("this node hands over")
        token = secrets.token_bytes(16)
        seq = self._outgoing.submit(0, 0, frames.Handover(token))
        self._hot.flush()
        if not self._hot.wait_acked(seq, HANDOVER_MS):
            log.warning("the peer did not take over within %d ms", HANDOVER_MS)
            return False
        self._hot.wait_synced(0, HANDOVER_MS)
        self._standing.token = token
        return True

    def checkpoint(self) -> None:
        """Retire what both disks have. Called now and then, in a thread of its own.

        Raises OSError: nothing is retired then.
        """
        standing = self._standing
        with standing.decide:
            stream, epoch = standing.stream, self._outgoing.epoch
            steady = standing.role is Role.PRIMARY and stream in (Stream.SYNCED, Stream.ALONE)
            if not steady or not self._periods.anything:
                return
            self._close_gate()  # who saw the former period is through with its change
            self._periods.rotate()
            self._gate.open()
        if stream is Stream.SYNCED:
            if not self._sync_both():
                return
        else:
            self._sync_here()
        with standing.decide:
            if (standing.stream, self._outgoing.epoch) == (stream, epoch):
                self._periods.settle()
                self._outgoing.submit(0, 0, frames.Settled())
        self._hot.flush()

    def pulse(self) -> None:
        """A sign of life for the standby."""
        if self._outgoing.attached:
            self._hot.post(frames.Type.PING)
        resync = self._resync
        if resync is not None:
            resync.tell_progress()

    # The verification.

    def verify(self, *, repair: bool) -> None:
        """Begin to compare both copies. Raises Refused. `Standing.decide` is held."""
        stream = self._standing.stream
        if self._standing.role is not Role.PRIMARY:
            raise Refused("verify runs on the primary, and this node is not primary")
        if stream is not Stream.SYNCED:
            raise Refused(f"there is no up-to-date standby to compare with: the stream is {stream}")
        self.verifier.begin(repair=repair)

    def begin_again(self, differences: Sequence[Difference]) -> None:
        """Let a resync bring over what `differences` name, or everything if there are none.

        They are marked, durably, and the stream ends; the next one begins with what is marked.
        """
        marks = [each.mark for each in differences] or [
            Mark(Kind.ALL, name.encode(), EVERYTHING) for name in self._mounts.names
        ]
        with self._standing.decide:
            if self._standing.stream is not Stream.SYNCED:
                raise Stopped("the stream to the standby ended")
            self._close_gate()
            try:
                self._periods.differ(marks)
            finally:
                self._gate.open()
        self.connector.disconnect()

    # The resync.

    def _begin_resync(self, *, partial: bool) -> None:
        rate = self._settings.resync_rate
        resync = Resync(self._outgoing, self._mounts, partial=partial, rate=rate)
        self._resync = resync
        self.progress = resync.progress
        threading.Thread(
            target=self._run_resync, args=(resync,), name="resync", daemon=True
        ).start()

    def _cancel_resync(self) -> None:
        resync, self._resync = self._resync, None
        if resync is not None:
            resync.courier.cancel()

    def _run_resync(self, resync: Resync) -> None:
        be_nice()
        try:
            if resync.partial:
                self._add_peers_marks(resync)
            resync.run()
            while not self._complete(resync):
                resync.run()
        except Interrupted:
            log.info("resync interrupted")
            with self._standing.decide:
                if self._resync is resync:  # the peer took too long: begin again
                    self.connector.disconnect()
        except Exception:
            log.exception("resync failed")
            self.connector.disconnect()
        finally:
            resync.finish()

    def _add_peers_marks(self, resync: Resync) -> None:
        noted = resync.courier.peers_marks()
        with self._standing.decide:
            if self._resync is not resync:
                raise Interrupted
            self._periods.add_peers(noted)

    def _sync_both(self) -> bool:
        """All that was changed so far is on both disks. False: the stream broke, or too slow.

        Here, too, because a primary may have got what it has as a standby, and nobody has
        noted that it is only in memory.
        """
        seq = self._hot.submit_fsync(frames.Type.SYNCFS, 0, 0, b"", -1, 0, 0)
        self._hot.flush()
        self._sync_here()
        return self._hot.wait_synced(seq, SYNCFS_MS)

    def _sync_here(self) -> None:
        for directory in self._mounts:
            _hotpath.syncfs(directory.root_fd)

    def _complete(self, resync: Resync) -> bool:
        """The last step, with nothing in flight. False: something moved, walk on."""
        standing = self._standing
        if not self._sync_both():
            raise Interrupted
        with standing.decide:
            if self._resync is not resync:
                raise Interrupted
            self._gate.close()
            if not resync.done:
                self._gate.open()
                return False
            # From here on a loss of the peer holds writes: it may become up to date.
            base = standing.record.base if resync.partial else secrets.token_hex(8)
            standing.put(peer_outdated=False, base=base)
            self._outgoing.phase = Phase.SYNCED
            self._periods.peer_has_everything(on_disk=True)
            lineage = standing.record.lineage
            history = json.dumps(lineage.history).encode()
            origins = standing.record.origins.encode()
            done = frames.Done(lineage.generation.encode(), history, base.encode(), origins)
            seq = self._outgoing.submit(0, 0, done)
            self._hot.flush()
            self._gate.open()
        if not self._hot.wait_acked(seq, DONE_MS):
            self.connector.disconnect()
            raise Interrupted
        with standing.decide:
            if self._resync is not resync:
                raise Interrupted
            self._resync = None
            standing.say(stream=Stream.SYNCED)
        return True
