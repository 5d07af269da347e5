# SPDX-License-Identifier: Apache-2.0
"""The verification of this process's life: begun, answered, repaired, ended, shown."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from itertools import islice

from haoperator.replica import frames
from haoperator.replica.asking import Asker, Stopped
from haoperator.replica.difference import Difference, What
from haoperator.replica.mending import MENDABLE, Mender
from haoperator.replica.mounts import Mounts
from haoperator.replica.outgoing import Outgoing
from haoperator.replica.standing import Refused
from haoperator.replica.verification import Verification, VerifyState
from haoperator.replica.verify import Verify

LOGGED = 10
"""Differences that are named in the journal; the others are counted."""

log = logging.getLogger(__name__)


class Verifier:
    """At most one verification at a time. Its result is kept until the next one."""

    def __init__(
        self,
        outgoing: Outgoing,
        mounts: Mounts,
        changed: Callable[[], None],
        begin_again: Callable[[Sequence[Difference]], None],
    ) -> None:
        """`begin_again`: end the stream, so that a resync brings over what is named there.

        It is given all differences that were not put right in place, or none where there
        were too many to keep: then everything is to be compared. Raises Stopped, OSError.
        """
        self.report = Verification()
        self._outgoing = outgoing
        self._mounts = mounts
        self._changed = changed
        self._begin_again = begin_again
        self._asker: Asker | None = None

    @property
    def running(self) -> bool:
        return self.report.running

    def begin(self, *, repair: bool) -> None:
        """On a synced stream. Raises Refused while one is running."""
        if self.running:
            raise Refused(
                f"a verification is running already, {self.report.progress:.0%} is compared"
            )
        self.report = Verification(VerifyState.RUNNING, repair, time.time())
        self._asker = Asker(self._outgoing)
        log.info("verify: begins%s", ", what differs is repaired" if repair else "")
        work = (self._asker, self.report)
        threading.Thread(target=self._run, args=work, name="verify", daemon=True).start()
        self._changed()

    def stop(self, reason: str) -> None:
        """What runs ends soon, and says why. Callable in any thread, under any lock."""
        asker = self._asker
        if asker is not None:
            asker.stop(reason)

    def deliver(self, seq: int, answer: frames.FromPeer) -> None:
        """An answer of the standby."""
        asker = self._asker
        if asker is not None:
            asker.deliver(seq, answer)

    def _run(self, asker: Asker, report: Verification) -> None:
        try:
            Verify(self._outgoing, self._mounts, asker, report).run()
            self._tell(report)
            if report.repair and report.found.count:
                report.state = VerifyState.REPAIRING
                self._repair(asker, report)
            report.end(VerifyState.DONE)
        except Stopped as err:
            report.end(VerifyState.STOPPED, str(err))
        except OSError as err:
            report.end(VerifyState.STOPPED, f"this node cannot read its own copy: {err}")
        except Exception:
            log.exception("verify failed")
            report.end(VerifyState.STOPPED, "an error in the program: see the journal")
        if report.state is VerifyState.STOPPED:
            log.error(
                "verify: stopped, nothing is said of what was not compared: %s", report.reason
            )
            self._tell(report)
        self._changed()

    def _repair(self, asker: Asker, report: Verification) -> None:
        """Put right what can be, in place; the rest is for a resync."""
        mender = Mender(self._outgoing, asker)
        directories = {directory.name: directory for directory in self._mounts}
        left = []
        for each in report.found:
            if each.what in MENDABLE and mender.mend(directories[each.directory], each):
                report.repaired += 1
            elif each.what is not What.UNREADABLE:
                left.append(each)
        log.warning("verify: %d of %d repaired in place", report.repaired, report.found.count)
        if left or not report.found.complete:
            self._begin_again(left if report.found.complete else ())
            report.resync = True
            log.warning("verify: a resync brings over the rest")

    def _tell(self, report: Verification) -> None:
        compared = f"{report.files} files and {report.directories} directories"
        if not report.found.count:
            if report.state is VerifyState.RUNNING:
                log.info("verify: both copies are equal, %s compared", compared)
            return
        for each in islice(report.found, LOGGED):
            log.error(
                "verify: %s differs between the nodes (%s) in [replicate.%s]%s",
                os.fsdecode(each.path) or ".",
                each.what,
                each.directory,
                f": {each.detail}" if each.detail else f" at offset {each.offset}",
            )
        log.error(
            "verify: the nodes differ in %d places, %s compared%s",
            report.found.count,
            compared,
            "" if report.repair else ": 'hactl verify --repair' sends them again",
        )
