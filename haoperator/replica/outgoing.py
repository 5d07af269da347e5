# SPDX-License-Identifier: Apache-2.0
"""The primary's end of the stream as the namespace operations and the resync see it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from haoperator.replica import frames, wire
from haoperator.replica._hotpath import Channel, HotPath

if TYPE_CHECKING:
    from haoperator.replica.directory import Directory
    from haoperator.replica.nodes import Node

BOUND_NEVER = 0xFFFF_FFFF_FFFF_FFFF
"""In place of an epoch: the file has no name any more, the peer need not know it."""
BOUND_LIMIT = 8192
"""Files that the peer keeps open for us at most, as long as they are not open here. Its
descriptors must be enough for them and for its own nodes (limits.py)."""


class Phase(StrEnum):
    """What the stream is to those who change something."""

    DETACHED = "detached"
    """No peer: changes are local."""
    RESYNC = "resync"
    """Changes go to a peer whose tree is still a mixture."""
    SYNCED = "synced"
    """Changes go to a peer that has everything."""


Place = tuple["Node", bytes]
"""A directory, and a name in it."""


class Walk(Protocol):
    """A resync, as those see it who change names. Called under the namespace mutex."""

    def moved(self, directory: Directory, old: Place, new: Place, *, exchange: bool) -> None: ...
    def linked(self, directory: Directory, source: Node, new: Place) -> None: ...


class Follower(Protocol):
    """A verification, the same."""

    def named(self, directory: Directory, parent: Node, name: bytes) -> None: ...


class Outgoing:
    """Frames to the peer. `phase` and `epoch` change only while no change is in flight."""

    def __init__(self, hot: HotPath) -> None:
        self.hot = hot
        self.phase = Phase.DETACHED
        self.epoch = 0
        self.walk: Walk | None = None
        """A resync is told what gets another name."""
        self.follower: Follower | None = None
        """So is a verification. One may end while a resync begins already."""
        self.verification = 0
        """Counts verifications: what is made from the beginning of one on was forwarded whole."""
        self._bound: dict[int, Node] = {}
        self._never: set[int] = set()

    @property
    def attached(self) -> bool:
        return self.phase is not Phase.DETACHED

    def attach(self, channel: Channel, phase: Phase) -> None:
        """Begin a stream. Nothing may be in flight."""
        self._bound.clear()
        for node in self._never:
            self.hot.set_bound(node, 0)
        self._never.clear()
        self.epoch = self.hot.attach(channel)
        self.phase = phase

    def detach(self) -> None:
        """End it. Nothing may be in flight; those who wait for the peer wait on."""
        self.hot.detach()
        self.phase = Phase.DETACHED

    def submit(self, directory: int, node: int, frame: frames.Frame, epoch: int = 0) -> int:
        """Append a frame that nobody waits for. Returns its seq, 0 without a stream.

        `epoch`: the stream that it is meant for, where another may stand meanwhile.
        """
        if not self.attached:
            return 0
        return self.hot.submit(
            wire.type_of(frame), directory, node, wire.payload_of(frame), -1, 0, b"", epoch
        )

    def bind(self, directory: Directory, node: Node, *, again: bool = False) -> bool:
        """Make the peer know a regular file by its id. False: it need not, or cannot.

        The namespace mutex is held. Raises OSError(EIO) where a file of a synced
        stream has a name that is not known: never diverge in silence.
        """
        if not self.attached or (node.bound == self.epoch and not again):
            return self.attached
        path = directory.nodes.path(node)
        if path is None:
            directory.require_nameless(node)
            self.hot.set_bound(node.id, BOUND_NEVER)
            self._never.add(node.id)
            return False
        self.submit(directory.index, node.id, frames.Bind(path))
        self.bound(node)
        return True

    def bound(self, node: Node) -> None:
        """The peer knows `node` from here on (BIND, MAKE or TMPFILE was submitted)."""
        if not self.attached:
            return
        node.bound = self.epoch
        self.hot.set_bound(node.id, self.epoch)
        self._never.discard(node.id)
        self._bound[node.id] = node
        if len(self._bound) > BOUND_LIMIT:
            self._unbind_oldest()

    def moved(self, directory: Directory, old: Place, new: Place, *, exchange: bool) -> None:
        """A rename is done, and its frame comes next."""
        if self.walk is not None:
            self.walk.moved(directory, old, new, exchange=exchange)
        if self.follower is not None:
            self.follower.named(directory, *new)
            if exchange:
                self.follower.named(directory, *old)

    def linked(self, directory: Directory, source: Node, new: Place) -> None:
        """The same for a further name."""
        if self.walk is not None:
            self.walk.linked(directory, source, new)
        if self.follower is not None:
            self.follower.named(directory, *new)

    def is_bound(self, node: Node) -> bool:
        return self.attached and node.bound == self.epoch

    def dropped(self, directory: Directory, node: Node) -> None:
        """The node is gone."""
        self._never.discard(node.id)
        if self._bound.pop(node.id, None) is not None and self.is_bound(node):
            self.submit(directory.index, node.id, frames.Unbind())

    def _unbind_oldest(self) -> None:
        for node in list(self._bound.values())[: BOUND_LIMIT // 8]:
            del self._bound[node.id]
            if node.opens == 0 and node.names:
                self.submit(0, node.id, frames.Unbind())
                self.hot.set_bound(node.id, 0)
                node.bound = 0
            else:
                self._bound[node.id] = node
