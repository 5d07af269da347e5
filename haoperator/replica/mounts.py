# SPDX-License-Identifier: Apache-2.0
"""The replicated directories that are mounted, out of those that are configured."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from haoperator.core.status import Role
from haoperator.replica.directory import Directory
from haoperator.replica.flushing import flush
from haoperator.replica.intent import IntentLog
from haoperator.replica.limits import Crowd
from haoperator.replica.nodelog import NodeLog
from haoperator.replica.nodes import NodeIds
from haoperator.replica.outgoing import Outgoing
from haoperator.replica.settings import Settings
from haoperator.replica.standing import Refused
from tomlconfig.model import Durability

REST_SECONDS = 0.05
"""Between two times of letting go: what is in use cannot be let go of, however often one tries."""
CACHES_SECONDS = 2.0
"""How long a new primary waits for the kernel to drop what it knew of the standby."""

log = logging.getLogger(__name__)


class Mounts:
    """Changed under `Standing.decide`; may be read without it."""

    def __init__(self, settings: Settings, outgoing: Outgoing, intent_log: IntentLog) -> None:
        self._settings = settings
        self._intent_log = intent_log
        self._outgoing = outgoing
        self._ids = NodeIds()
        self._crowd = Crowd()
        self._by_name: dict[str, Directory] = {}
        for name in self.names:  # before any id is given out: they are shared by all
            self._reserve_ids(name)

    def __iter__(self) -> Iterator[Directory]:
        """Those that are mounted, in the order of the configuration."""
        return iter([self._by_name[name] for name in self.names if name in self._by_name])

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    @property
    def names(self) -> list[str]:
        """All that are configured."""
        return [directory.name for directory in self._settings.directories]

    @property
    def complete(self) -> bool:
        return len(self._by_name) == len(self._settings.directories)

    def take(self, name: str, path: str, fuse_fd: int, root_fd: int) -> Directory:
        """A directory for two descriptors, which it takes over. Raises Refused."""
        if name not in self.names:
            raise Refused(f"no [replicate.{name}] in the configuration")
        if name in self._by_name:
            raise Refused(f"{name} is mounted already")
        index = self.names.index(name)
        directory = Directory(
            name,
            path,
            index,
            fuse_fd,
            root_fd,
            self._outgoing,
            self._ids,
            NodeLog(self._log_path(name)),
            self._intent_log,
            self._crowd,
            may_cache_writes=self._settings.directories[index].durability is Durability.FSYNC,
        )
        self._by_name[name] = directory
        return directory

    def _log_path(self, name: str) -> Path:
        return self._settings.run_directory / f"nodes-{name}"

    def _reserve_ids(self, name: str) -> None:
        if self._log_path(name).exists():
            node_log = NodeLog(self._log_path(name))
            former = node_log.replay()
            node_log.close(remove=False)
            if former is not None:
                self._ids.used(former.last)

    def give_back(self, directory: Directory) -> None:
        """It was unmounted."""
        self._by_name.pop(directory.name, None)
        directory.close()

    def dispatch(self, fuse_fd: int, request: bytes) -> None:
        for directory in self:
            if directory.fuse_fd == fuse_fd:
                directory.dispatch(request)

    def become(self, role: Role) -> None:
        for directory in self:
            directory.become(role)

    def forget_caches(self, patience: float) -> None:
        """Make the kernel ask anew. Hold no lock that a request may wait for."""
        thread = threading.Thread(target=self._forget_caches, name="caches", daemon=True)
        thread.start()
        thread.join(patience)

    def _forget_caches(self) -> None:
        for directory in self:
            try:
                directory.forget_caches()
            except OSError as err:
                log.warning("%s: %s", directory.name, err.strerror)

    def flush(self, worth_it: Callable[[], bool]) -> bool:
        """Bring to safety what the kernel holds back (flushing.py). Hold no lock."""
        held = [directory.held_back() for directory in self]
        return flush([mount for mount in held if mount is not None], worth_it)

    def housekeep(self, role: Role, seconds: float) -> None:
        """After so many seconds, or earlier if there are too many nodes: see what the kernel
        should let go of. It may make this wait."""
        self._crowd.noticed.wait(seconds)
        self._crowd.noticed.clear()
        surplus = sum(len(directory.nodes) for directory in self) - self._crowd.most
        for directory in self:
            with contextlib.suppress(OSError):
                if surplus > 0:
                    directory.forget_some(surplus + self._crowd.most // 4)
                directory.compact_log()
                if role is Role.SECONDARY:
                    directory.refresh_lingering()
        if surplus > 0:
            time.sleep(REST_SECONDS)
