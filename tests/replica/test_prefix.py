# SPDX-License-Identifier: Apache-2.0
"""The tree on the standby is at every moment a prefix of the primary's history.

A primary carries out random operations in two directories, and its stream is recorded;
so is what a model, two plain directories, looks like after each of them. Then a standby
gets the stream frame by frame. After each one, with the next one half arrived, both of
its directories must look as the model did at one and the same moment: never further,
never earlier, in no other order than the primary's. The same where the stream is cut.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haoperator.replica import frames
from haoperator.replica.frames import Type
from haoperator.replica.session import StandbySession
from tests.replica.channels import TIMEOUT_MS, joined
from tests.replica.pair import Pair
from tests.replica.recorder import HEAD, Frame, Recorder
from tests.replica.spawner import Spawner
from tests.replica.test_random import Tree, operations
from tests.replica.trees import Tree as Look
from tests.replica.trees import differences, tree_of

DIRECTORIES = ("data", "log")
SECONDS = 20.0
PAGE = 4096
ENOUGH = 300
"""Looks at a standby; some runs are short."""
_numbers = itertools.count()

runs = st.lists(st.tuples(st.sampled_from(DIRECTORIES), operations), min_size=10, max_size=40)


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment of the history: how many frames had been sent, and what there was."""

    sent: int
    look: dict[str, Look]


@dataclass(slots=True)
class Primary:
    """A primary with two directories, and what it sent."""

    pair: Pair
    recorder: Recorder
    compared: int = 0
    """Looks at a standby, in all runs."""


@pytest.fixture(scope="module")
def primary(tmp_path_factory: pytest.TempPathFactory, spawner: Spawner) -> Iterator[Primary]:
    place = tmp_path_factory.mktemp("recorded")
    pair = Pair(place, spawner, directories=DIRECTORIES, detect_seconds=SECONDS)
    recorder = Recorder(pair.b)
    try:
        pair.a.boot()
        pair.a.begin()
        pair.a.wait_stream("synced")
        made = Primary(pair, recorder)
        yield made
        assert made.compared >= ENOUGH
    finally:
        pair.stop()
        recorder.close()


class Stepwise(Tree):
    """A tree that tells after each single change, where an operation makes several.

    The kernel may ask for the bytes up to a page's end in a request of their own.
    """

    def do_write(self, name: str, offset: int, length: int, byte: int) -> None:
        fd = os.open(self.at(name), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            self.changed()
            self._put(fd, offset, bytes([byte]) * length)
        finally:
            os.close(fd)

    def do_append(self, name: str, data: bytes) -> None:
        fd = os.open(self.at(name), os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
        try:
            self._put(fd, os.fstat(fd).st_size, data)
        finally:
            os.close(fd)

    def do_write_open(self, which: int, offset: int, data: bytes) -> None:
        if which < len(self.open):
            self._put(self.open[which], offset, data)

    def _put(self, fd: int, offset: int, data: bytes) -> None:
        first = -offset % PAGE
        os.pwrite(fd, data[:first], offset)
        self.changed()
        os.pwrite(fd, data[first:], offset + first)

    def changed(self) -> None:
        """Between two changes of one operation."""


class Model(Stepwise):
    """Remembers what it looked like in between."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.between: list[Look] = []

    def changed(self) -> None:
        self.between.append(tree_of(self.root, times=False))


class Mounted(Stepwise):
    """Remembers how many frames had been sent in between."""

    def __init__(self, root: Path, sent: list[Frame]) -> None:
        super().__init__(root)
        self.sent = sent
        self.between: list[int] = []

    def changed(self) -> None:
        self.between.append(len(self.sent))


@dataclass(slots=True)
class History:
    """One run: the frames, and every moment between two changes."""

    frames: list[Frame] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)

    def packed(self) -> tuple[bytes, list[int]]:
        """The bytes of a stream of its own, and where each frame ends in it."""
        packed = [frame.packed(seq) for seq, frame in enumerate(self.frames, 1)]
        return b"".join(packed), list(itertools.accumulate(map(len, packed)))


def history_of(
    primary: Primary, base: Path, name: str, run: list[tuple[str, tuple[object, ...]]]
) -> History:
    """Carry out a run on the mounts and on the model."""
    recorded = primary.recorder.frames
    first = len(recorded)
    mounted = {d: Mounted(primary.pair.a.paths[d] / name, recorded) for d in DIRECTORIES}
    model = {d: Model(base / f"{name}-{d}") for d in DIRECTORIES}
    for tree in (*mounted.values(), *model.values()):
        tree.root.mkdir()
        (tree.root / "d").mkdir()
    look = {d: tree_of(model[d].root, times=False) for d in DIRECTORIES}
    history = History(moments=[Moment(len(recorded) - first, look)])
    try:
        for directory, operation in run:
            one, other = mounted[directory], model[directory]
            assert one.run(operation) == other.run(operation), operation
            one.between.append(len(recorded))
            other.between.append(tree_of(other.root, times=False))
            for sent, after in zip(one.between, other.between, strict=True):
                look = look | {directory: after}
                history.moments.append(Moment(sent - first, look))
            one.between.clear()
            other.between.clear()
    finally:
        for tree in (*mounted.values(), *model.values()):
            tree.close()
    assert primary.pair.a.stream == "synced", primary.pair.a.log_text()
    history.frames = recorded[first : first + history.moments[-1].sent]
    return history


class Owner:
    """What becomes of the session of a standby."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.failures: list[str] = []

    def handed_over(self, session: StandbySession, token: bytes) -> None: ...
    def resynced(self, session: StandbySession, done: frames.Done) -> None: ...
    def settled(self, session: StandbySession) -> None: ...

    def progressed(
        self, session: StandbySession, directory: int, told: frames.Progress
    ) -> None: ...

    def failed(self, session: StandbySession, reason: str, *, unlike: bool) -> None:
        self.failures.append(reason)

    def ended(self, session: StandbySession, *, closed: bool) -> None:
        self.over.set()


class Standby:
    """A standby with empty directories, and the primary's end of its stream."""

    def __init__(self, base: Path) -> None:
        self.roots = [base / d for d in DIRECTORIES]
        for root in self.roots:
            root.mkdir(parents=True)
        self._fds = [os.open(root, os.O_RDONLY | os.O_DIRECTORY) for root in self.roots]
        ours, theirs = socket.socketpair()
        self._wire = ours.dup()
        self._channel, end = joined(ours, theirs)
        self.owner = Owner()
        self._session = StandbySession(
            end, self._fds, self.owner, tolerant=False, partial=False, detect_ms=60_000
        )
        self._session.start()
        self.acked = 0

    def send(self, data: bytes) -> None:
        self._channel.send(data, TIMEOUT_MS)

    def wait_acked(self, seq: int) -> None:
        while self.acked < seq:
            try:
                head = self._channel.receive(HEAD.size, TIMEOUT_MS)
            except OSError as err:
                raise AssertionError(self.owner.failures) from err
            length, kind, _, self.acked, _ = HEAD.unpack(head)
            assert (length, kind) == (HEAD.size, Type.ACK)

    def cut(self) -> None:
        """No byte comes any more; what had come whole is applied when this returns."""
        self._wire.shutdown(socket.SHUT_WR)
        assert self.owner.over.wait(SECONDS)

    def look(self, run: str) -> dict[str, Look]:
        places = {root.name: root / run for root in self.roots}
        return {d: tree_of(p, times=False) if p.exists() else {} for d, p in places.items()}

    def close(self) -> None:
        self._session.close()
        self._channel.close()
        self._wire.close()
        for fd in self._fds:
            os.close(fd)


def told(found: dict[str, Look], wanted: dict[str, Look]) -> str:
    return "\n".join(
        f"{d}: {line}" for d in DIRECTORIES for line in differences(found[d], wanted[d])
    )


def check(standby: Standby, run: str, history: History, applied: int) -> None:
    """After so many frames: what the model looked like when so many had been sent.

    One change may be several frames (BIND, then WRITE). In between it has been made, or not.
    """
    if applied < history.moments[0].sent:
        return  # the directories of the run are being made
    allowed = [moment.look for moment in history.moments if moment.sent == applied]
    if not allowed:
        before = [moment.look for moment in history.moments if moment.sent < applied]
        after = [moment.look for moment in history.moments if moment.sent > applied]
        allowed = [before[-1], after[0]]
    else:
        assert all(look == allowed[0] for look in allowed), "a change that was not sent"
    found = standby.look(run)
    assert found in allowed, told(found, allowed[0])


def frame_by_frame(base: Path, run: str, history: History) -> int:
    """After each frame that is acknowledged, with half of the next one there."""
    stream, ends = history.packed()
    standby, at = Standby(base), 0
    try:
        for seq, end in enumerate(ends, 1):
            upto = (end + (ends[seq] if seq < len(ends) else end)) // 2
            standby.send(stream[at:upto])
            at = upto
            standby.wait_acked(seq)
            check(standby, run, history, seq)
    finally:
        standby.close()
    assert not standby.owner.failures
    return len(ends)


def cut_after_each_change(base: Path, run: str, history: History) -> int:
    """Where the stream ends after a change, somewhere in the frame of the next."""
    stream, ends = history.packed()
    places = sorted({moment.sent for moment in history.moments})
    for sent in places:
        standby = Standby(base / str(sent))
        try:
            end = ends[sent - 1]
            after = ends[sent] if sent < len(ends) else end + 1
            standby.send(stream[: end + (after - end) * sent // (sent + 1)])
            standby.cut()
            check(standby, run, history, sent)
        finally:
            standby.close()
    return len(places)


@given(runs)
@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_every_prefix_of_the_stream_is_a_moment_of_the_history(
    primary: Primary,
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[str, tuple[object, ...]]],
) -> None:
    base = tmp_path_factory.mktemp("prefix")
    run = f"run-{next(_numbers)}"
    history = history_of(primary, base, run, steps)
    primary.compared += frame_by_frame(base / "frames", run, history)
    primary.compared += cut_after_each_change(base / "cuts", run, history)
