# SPDX-License-Identifier: Apache-2.0
"""The replicator as a service: the engine between systemd, the bus and the mount helper."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from pathlib import Path

from haoperator.replica import fdstore
from haoperator.replica.engine import Engine
from haoperator.replica.interface import BUS_NAME, OBJECT_PATH, ReplicatorInterface
from haoperator.replica.reception import Reception
from haoperator.replica.record import PATH as RECORD_PATH
from haoperator.replica.settings import LinkPath, ReplicatedDirectory, Settings
from haoperator.replica.standing import Refused
from haoperator.systemd import notify
from haoperator.systemd.bus import Endpoint
from tomlconfig.model import Config

RUN_DIRECTORY = Path("/run/haoperator")

log = logging.getLogger(__name__)


def settings_of(config: Config, node: str, key: bytes) -> Settings:
    """What the configuration means for the replicator of `node`. Raises ValueError."""
    peer = config.peer_of(node)
    return Settings(
        cluster=config.cluster.name,
        node=node,
        peer=peer,
        key=key,
        links=tuple(
            LinkPath(link.name, link.addresses[node], link.addresses[peer]) for link in config.links
        ),
        directories=tuple(
            ReplicatedDirectory(table.name, str(table.path), table.durability)
            for table in config.replicate
        ),
        record_path=RECORD_PATH,
        run_directory=RUN_DIRECTORY,
        detect_seconds=config.timing.detect,
        resync_rate=config.cluster.resync_rate,
        snapshot_before_resync=config.cluster.snapshot_before_resync,
    )


class Service:
    """One life of ha-replicator.service."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._engine = Engine(settings, self._changed, fdstore.drop)
        self._interface = ReplicatorInterface(self._engine)

    async def run(self) -> None:
        """Serve for ever. Raises NameTaken if another instance owns the bus name."""
        self._take_up()
        Reception(self._settings.run_directory / "replicator.sock", self._mounted).start()
        self._engine.start()
        notify.ready("serving")
        async with asyncio.TaskGroup() as group:
            group.create_task(Endpoint(BUS_NAME, {OBJECT_PATH: [self._interface]}).run())
            group.create_task(notify.prove_alive(self._progress))

    def leave(self) -> None:
        """At once, if there is nothing to flush: threads wait in the kernel for requests, and
        the mounts live on without us, if systemd keeps their descriptors."""
        notify.stopping()
        threading.Thread(target=self._flush_and_exit, name="leave", daemon=True).start()

    def _flush_and_exit(self) -> None:
        try:
            self._engine.flush()
        finally:
            os._exit(0)

    def _take_up(self) -> None:
        """Go on with the mounts that a former process served."""
        paths = {directory.name: directory.path for directory in self._settings.directories}
        taken_up = fdstore.taken_up()
        self._engine.requests.take_up(dict(taken_up.tables), fdstore)
        for kept in taken_up.directories:
            try:
                self._engine.add_directory(
                    kept.name, paths.get(kept.name, ""), kept.fuse_fd, kept.root_fd, restored=True
                )
            except Refused as err:
                log.error("a kept mount is given up: %s", err)
                fdstore.drop(kept.name)
                os.close(kept.fuse_fd)
                os.close(kept.root_fd)
        self._engine.requests.settle()

    def _mounted(self, name: str, path: str, fuse_fd: int, root_fd: int) -> None:
        """In the reception's thread. Kept first: a mount whose server dies must not be lost."""
        fdstore.keep(name, fuse_fd, root_fd)
        try:
            self._engine.add_directory(name, path, fuse_fd, root_fd)
        except Exception:
            fdstore.drop(name)
            raise

    def _changed(self) -> None:
        """In any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: on the way out
            self._loop.call_soon_threadsafe(self._announce)

    def _announce(self) -> None:
        self._interface.announce()
        state = f"{self._engine.role}, stream {self._engine.stream}"
        notify.status(f"{state}: {self._engine.refusal}" if self._engine.refusal else state)

    async def _progress(self) -> None:
        await asyncio.to_thread(self._engine.check_alive)
