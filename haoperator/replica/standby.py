# SPDX-License-Identifier: Apache-2.0
"""The standby's side of the stream: accepted, applied, lost.

It takes one stream at a time; a new one of the peer replaces the former.
A session ends before anything else changes what the record says, so that its threads
need no lock to store what the stream brought.
"""

from __future__ import annotations

import errno
import json
import logging
import time

from haoperator.core.status import Stream
from haoperator.replica import frames, handshake
from haoperator.replica._hotpath import Channel
from haoperator.replica.acceptance import KNOCKED, Verdict, judge
from haoperator.replica.aside import Aside
from haoperator.replica.copying import Progress
from haoperator.replica.fallback import Fallback
from haoperator.replica.handshake import Json, Meeting
from haoperator.replica.listener import Listener
from haoperator.replica.mounts import Mounts
from haoperator.replica.periods import Periods
from haoperator.replica.session import StandbySession
from haoperator.replica.settings import Settings
from haoperator.replica.standing import Standing

log = logging.getLogger(__name__)


class StandbySide:
    """What happens between a standby and its primary, as the standby sees it."""

    def __init__(
        self, settings: Settings, standing: Standing, mounts: Mounts, periods: Periods
    ) -> None:
        self._settings = settings
        self._periods = periods
        self._standing = standing
        self._mounts = mounts
        self._session: StandbySession | None = None
        self.aside = Aside(settings, standing, mounts)
        self.fallback = Fallback(wanted=settings.snapshot_before_resync, directories=mounts)
        self.progress: dict[str, Progress] = {}
        """By directory, of the last resync, as the primary told it."""
        self.left_behind_until = 0.0
        """Until when a primary of the same generation is to go on alone; by time.monotonic."""
        self.listener = Listener(settings, self.greeted)

    @property
    def heard(self) -> float:
        """When the primary was heard last on a stream, 0 for never."""
        session = self._session
        return session.applier.heard() if session else 0.0

    def greeted(self, meeting: Meeting) -> None:
        """The peer has proved itself and says what it wants. Takes the channel over."""
        channel, said = meeting.channel, meeting.asked
        self._standing.peer_lives()
        try:
            if said.get("knock"):
                handshake.answer(channel, KNOCKED.to_json())
                channel.close()
            else:
                with self._standing.decide:
                    self._consider(channel, said)
        except (OSError, ValueError, KeyError, TypeError) as err:
            log.warning("primary not accepted: %s", err)
            channel.close()

    def _consider(self, channel: Channel, said: Json) -> None:
        standing, settings = self._standing, self._settings
        verdict = judge(
            said,
            settings,
            standing.role,
            standing.record,
            standing.token,
            complete=self._mounts.complete,
            left_behind=time.monotonic() < self.left_behind_until,
        )
        if verdict.keep and not self.aside.prepare():
            reason = self.aside.problem or f"{settings.node} sets its losing data aside first"
            verdict = Verdict(refuse="aside", reason=reason)
        elif verdict.resync and standing.record.consistent and not self.fallback.prepare():
            verdict = Verdict(refuse="snapshot", reason=f"{settings.node} takes a snapshot first")
        if verdict.refuse:
            log.warning("primary refused: %s", verdict.reason)
            handshake.answer(channel, verdict.to_json())
            channel.close()
            return
        self.end()
        if verdict.resync and verdict.partial:
            standing.put(consistent=False, up_to_date=False)
        elif verdict.resync:
            standing.put(consistent=False, up_to_date=False, base="")
        else:
            standing.put(up_to_date=True, last_primary=False, peer_outdated=False)
        standing.token = b""
        standing.say(stream=Stream.RESYNC if verdict.resync else Stream.SYNCED)
        try:
            # Before there is a session: nothing may be said before the answer, no pulse either.
            handshake.answer(channel, verdict.to_json())
        except OSError:
            standing.say(stream=Stream.DISCONNECTED)
            raise
        self._session = StandbySession(
            channel,
            [directory.root_fd for directory in self._mounts],
            self,
            tolerant=verdict.resync,
            partial=verdict.partial,
            detect_ms=settings.detect_ms,
            branches=self.aside.open() if verdict.keep else (),
        )
        self._session.start()
        if verdict.mode == "noted":
            self._session.tell_marks(self._periods.packed())

    def end(self) -> None:
        """End the session, if there is one; nothing of it changes anything afterwards."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def pulse(self) -> None:
        """A sign of life for the primary."""
        session = self._session
        if session is not None:
            session.pulse()

    # What the session tells, in its threads. Each is durable when it returns.

    def handed_over(self, session: StandbySession, token: bytes) -> None:
        if session is self._session:
            self._standing.token = token
            self._standing.say(stream=Stream.HANDED_OVER)

    def resynced(self, session: StandbySession, done: frames.Done) -> None:
        if session is not self._session:
            raise OSError(errno.ESTALE, "the session was replaced")
        self._standing.put(
            generation=done.generation.decode("ascii"),
            history=tuple(map(str, json.loads(done.history))),
            consistent=True,
            up_to_date=True,
            last_primary=False,
            peer_outdated=False,
            base=done.base.decode("ascii"),
            origins=done.origins.decode("ascii"),
            yielded_to="",
        )
        self._periods.clear()
        self.aside.problem = ""
        self.aside.tidy()
        self.fallback.give_up()
        self._standing.say(stream=Stream.SYNCED)

    def progressed(self, session: StandbySession, directory: int, told: frames.Progress) -> None:
        if session is self._session and directory < len(self._mounts.names):
            self.progress[self._mounts.names[directory]] = Progress(*told)

    def settled(self, session: StandbySession) -> None:
        if session is self._session:
            self._periods.clear()

    def failed(self, session: StandbySession, reason: str, *, unlike: bool) -> None:
        log.error("cannot apply what the primary did, this copy is outdated: %s", reason)
        if session is self._session:
            if session.keeps:
                self.aside.failed(reason)
            if unlike:
                self._standing.put(up_to_date=False, base="")
            else:
                self._standing.put(up_to_date=False)
            self._standing.say(stream=Stream.DISCONNECTED)

    def ended(self, session: StandbySession, *, closed: bool) -> None:
        """`closed`: by the primary, which lived a moment ago."""
        if session is not self._session:
            return
        if closed:
            self._standing.heard = time.monotonic()
        stream = self._standing.stream
        if stream is Stream.HANDED_OVER:
            self._standing.changed()
        elif stream is Stream.SYNCED:
            self._standing.say(stream=Stream.LOST)
        else:
            self._standing.say(stream=Stream.DISCONNECTED)
