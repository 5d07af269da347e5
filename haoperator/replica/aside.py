# SPDX-License-Identifier: Apache-2.0
"""The branches of all replicated directories of a node that lost a split brain."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time

from haoperator.core.record import DataRecord
from haoperator.replica.branch import Branch, branches
from haoperator.replica.manifest import About
from haoperator.replica.mounts import Mounts
from haoperator.replica.priority import be_nice
from haoperator.replica.settings import Settings
from haoperator.replica.standing import Standing

RETRY_SECONDS = 10.0
"""After something could not be kept: what ails it, a full disk say, is likely to be there still."""

log = logging.getLogger(__name__)


class Aside:
    """Keeps them before a resync, and compares them when it is through.

    What takes long runs in threads of its own, one at a time. All but `problem` is called under
    `Standing.decide`.
    """

    def __init__(self, settings: Settings, standing: Standing, mounts: Mounts) -> None:
        self._settings = settings
        self._standing = standing
        self._mounts = mounts
        self._work = threading.Lock()
        self._taking: threading.Thread | None = None
        self._not_before = 0.0
        self._queue = threading.Lock()
        self._large: set[tuple[str, int]] = set()
        """Files, by directory and inode, that a resync may change when they are copied."""
        self._copying = False
        self.problem = ""
        """Why the data that lost is not overwritten yet, `""` if nothing is wrong."""

    def prepare(self) -> bool:
        """Whether all of this node's branch is kept. False: it is being done, or `problem` says
        why not; ask again."""
        if self._copying or (self._taking is not None and self._taking.is_alive()):
            return False
        branches_here = self.open()
        if all(branch.open for branch in branches_here):
            _close(branches_here)
            return True
        if time.monotonic() < self._not_before:
            _close(branches_here)
            return False
        about = self._about(branches_here)
        self._taking = threading.Thread(
            target=self._take, args=(branches_here, about), name="set-aside", daemon=True
        )
        self._taking.start()
        return False

    def open(self) -> list[Branch]:
        """The branch of each directory that this node's data is now; to be closed."""
        id_ = self._id(self._standing.record)
        return [Branch(each.name, each.root_fd, id_, self._copy_later) for each in self._mounts]

    def _id(self, record: DataRecord) -> str:
        """The same for all directories and attempts: there is one branch of a generation."""
        for directory in self._mounts:
            for branch in branches(directory.name, directory.root_fd):
                with contextlib.closing(branch):
                    if branch.whole and branch.id.endswith(f"-{record.generation}"):
                        return branch.id
        return f"{time.strftime('%Y-%m-%d')}-{record.generation}"

    def _about(self, here: list[Branch]) -> About:
        record = self._standing.record
        return About(
            here[0].id,
            record.generation,
            record.yielded_to,
            self._settings.node,
            self._settings.peer,
            time.time(),
        )

    def _take(self, here: list[Branch], about: About) -> None:
        try:
            with self._work:
                for branch in here:
                    if not branch.open:
                        began = time.monotonic()
                        count = branch.take(about)
                        took = time.monotonic() - began
                        log.info("%s: %d names set aside in %.1f s", branch, count, took)
            self.problem = ""
        except OSError as err:
            self._not_before = time.monotonic() + RETRY_SECONDS
            self.problem = err.strerror or str(err)
            log.error("%s", self.problem)
        finally:
            _close(here)
        self._standing.changed()

    def _copy_later(self, name: str, inode: int) -> None:
        """In the thread that applies, under no lock: this differs, and must not change before."""
        with self._queue:
            self._large.add((name, inode))
            if self._copying:
                return
            self._copying = True
        opened = self.open()
        threading.Thread(
            target=self._copy_large, args=(opened,), name="set-aside", daemon=True
        ).start()

    def _copy_large(self, opened: list[Branch]) -> None:
        by_name = {branch.name: branch for branch in opened}
        problem = ""
        while True:
            with self._queue:
                if not self._large:
                    self._copying = False
                    break
                name, inode = next(iter(self._large))
            try:
                with self._work:
                    by_name[name].release_inode(inode)
            except OSError as err:
                problem = f"a large file cannot be kept aside: {err.strerror or err}"
                log.error("%s", problem)
            with self._queue:
                self._large.discard((name, inode))
        self.problem = problem
        _close(opened)
        self._standing.changed()

    def tidy(self) -> None:
        """Compare those that are this node's data no more, and drop what is not whole. To be
        called whenever the data changed hands, and once at the start."""
        found = [
            branch
            for directory in self._mounts
            for branch in branches(directory.name, directory.root_fd)
        ]
        if found:
            generation = self._standing.record.generation
            threading.Thread(
                target=self._tidy, args=(found, generation), name="tidy", daemon=True
            ).start()

    def _tidy(self, found: list[Branch], generation: str) -> None:
        be_nice()
        try:
            with self._work:
                for branch in found:
                    self._tidy_one(branch, generation)
        finally:
            _close(found)

    def _tidy_one(self, branch: Branch, generation: str) -> None:
        try:
            if not branch.whole:
                branch.drop()
            elif not branch.id.endswith(f"-{generation}"):
                self._compare(branch)
        except (OSError, ValueError) as err:
            log.error("%s is not compared with the data that won: %s", branch, err)

    @staticmethod
    def _compare(branch: Branch) -> None:
        known = branch.compared
        count, size = branch.compare()
        if not count:
            log.info("%s: nothing differs from the data that won", branch)
            branch.drop()
        elif not known:
            kept = f"{size / 1e6:.1f} MB"
            log.warning("%s: %d names differ from the data that won: %s kept", branch, count, kept)

    def failed(self, reason: str) -> None:
        """A resync that overwrites the branch could not go on."""
        self.problem = reason
        self._standing.changed()

    def to_json(self) -> str:
        """The bus property `Yielded`."""
        told = {"to": self._standing.record.yielded_to, "problem": self.problem}
        return json.dumps(told)


def _close(opened: list[Branch]) -> None:
    for branch in opened:
        branch.close()
