# SPDX-License-Identifier: Apache-2.0
"""Requests that a killed replicator had read and not answered: the next one goes on with them."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from haoperator.replica import _hotpath, abi, inflight
from tests.replica.crowd import Crowd, known
from tests.replica.fusectl import nobody_waits, waiting
from tests.replica.pair import Node, Pair, wait_for
from tests.replica.trees import assert_equal_trees

MANY = 1100
"""More than TABLE_BUFFERS of inflight.h."""
MAKE_MANY = """
import os, sys, threading
threading.excepthook = lambda problem: (print(problem, file=sys.stderr), os._exit(1))
def make(n):
    os.mkdir(f'{sys.argv[1]}/many-{n}/new')
threading.stack_size(65536)
threads = [threading.Thread(target=make, args=(n,)) for n in range(int(sys.argv[2]))]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
EXCHANGE = 2
STALE = 1 << 40
"""The number of a request that the kernel never made."""
AT_FDCWD = -100


def restart(node: Node) -> None:
    node.kill()
    node.start(restored=True)


def begin_to_restart(node: Node) -> None:
    """The same, and return as soon as the new process has found what was left."""
    node.kill()
    before = node.log_text().count("are taken up")
    node.spawn(restored=True)
    wait_for(lambda: node.log_text().count("are taken up") > before, "it takes up")


@contextlib.contextmanager
def stopped(node: Node) -> Iterator[None]:
    """It does not answer, and does not hang up either."""
    assert node.process is not None
    node.process.send_signal(signal.SIGSTOP)
    threads = Path(f"/proc/{node.process.pid}/task")

    def still() -> bool:
        return all(
            (thread / "stat").read_text().rpartition(")")[2].split()[0] == "T"
            for thread in threads.iterdir()
        )

    try:
        wait_for(still, "all its threads stand still")
        yield
    finally:
        node.process.send_signal(signal.SIGCONT)


@pytest.fixture
def calls() -> Iterator[Callable[..., Future[object]]]:
    """Start system calls that may wait long."""
    with ThreadPoolExecutor(16) as pool:
        yield pool.submit


@pytest.mark.parametrize(("writers", "size"), [(12, 4096), (6, 1 << 20)])
def test_kills_under_load_cost_a_pause(
    synced: Pair, tmp_path: Path, writers: int, size: int
) -> None:
    a = synced.a
    (a.path / "known").write_bytes(known())
    with Crowd(a.path, tmp_path, writers=writers, size=size) as crowd:
        for _ in range(4):
            restart(a)
            a.call("become_primary", generation="")
            crowd.advances()
    assert not crowd.failed
    nobody_waits(a)
    a.wait_stream("synced", seconds=40)
    assert_equal_trees(a.backing, synced.b.backing)


def test_parked_writers_survive_kill_after_kill(synced: Pair, tmp_path: Path) -> None:
    a = synced.a
    (a.path / "known").write_bytes(known())
    with Crowd(a.path, tmp_path, writers=10, size=64 * 1024) as crowd:
        restart(a)
        wait_for(lambda: a.state["hot"]["parked"] == 10, "all of them are held")
        restart(a)  # nothing was let through in between
        wait_for(lambda: a.state["hot"]["parked"] == 10, "all of them are held again")
        for _ in range(3):  # and while it takes up what was left
            begin_to_restart(a)
        restart(a)
        wait_for(lambda: a.state["hot"]["parked"] == 10, "none was lost")
        a.call("become_primary", generation="")
        crowd.advances()
    assert not crowd.failed
    nobody_waits(a)
    a.wait_stream("synced", seconds=40)
    assert_equal_trees(a.backing, synced.b.backing)


def test_who_waits_for_the_peer_is_answered_after_a_kill(synced: Pair, tmp_path: Path) -> None:
    a, b = synced.a, synced.b
    (a.path / "known").write_bytes(known())
    with Crowd(a.path, tmp_path, writers=8, size=16 * 1024) as crowd:
        for _ in range(2):
            with stopped(b):
                wait_for(lambda: waiting(a) >= 8, "everybody waits for the peer")
                restart(a)
                a.call("become_primary", generation="")
            crowd.advances()
            a.wait_stream("synced", seconds=40)
    assert not crowd.failed
    nobody_waits(a)
    assert_equal_trees(a.backing, b.backing)


def test_what_was_carried_out_is_not_carried_out_again(
    synced: Pair, calls: Callable[..., Future[object]]
) -> None:
    a, b = synced.a, synced.b
    for name in ("one", "two"):
        (a.path / name).write_text(name)
    with stopped(b):
        one, two = (os.fsencode(a.path / name) for name in ("one", "two"))
        swap = calls(_hotpath.renameat2, AT_FDCWD, one, AT_FDCWD, two, EXCHANGE)
        wait_for(lambda: (a.backing / "one").read_text() == "two", "it is done here")
        restart(a)
        assert not swap.done()
        restart(a)
        assert (a.backing / "one").read_text() == "two"
        a.call("become_primary", generation="")
    swap.result(timeout=30)
    assert (a.path / "one").read_text() == "two"
    assert (a.path / "two").read_text() == "one"
    nobody_waits(a)
    a.wait_stream("synced", seconds=40)
    assert_equal_trees(a.backing, b.backing)


def test_every_kind_of_change_is_answered_once(
    synced: Pair, calls: Callable[..., Future[object]]
) -> None:
    a, b = synced.a, synced.b
    names = ("create", "make", "link", "remove", "rename", "mode", "cut", "label", "attribute")
    for name in names:  # a directory each: the kernel lets them go in parallel
        (a.path / name).mkdir()
        (a.path / name / "file").write_text(name * 100)
    work: list[Callable[[], object]] = [
        lambda: os.close(os.open(a.path / "create/new", os.O_CREAT | os.O_EXCL | os.O_WRONLY)),
        lambda: os.mkdir(a.path / "make/new"),
        lambda: os.link(a.path / "link/file", a.path / "link/new"),
        lambda: os.unlink(a.path / "remove/file"),
        lambda: os.rename(a.path / "rename/file", a.path / "rename/new"),
        lambda: os.chmod(a.path / "mode/file", 0o640),
        lambda: os.truncate(a.path / "cut/file", 7),
        lambda: os.symlink("file", a.path / "label/new"),
        lambda: os.setxattr(a.path / "attribute/file", "user.x", b"y", os.XATTR_CREATE),
    ]

    def done() -> bool:
        below = a.backing
        new = all(
            (below / name / "new").is_symlink() or (below / name / "new").exists()
            for name in ("create", "make", "link", "rename", "label")
        )
        file = below / "attribute/file"
        return (
            new
            and not (below / "remove/file").exists()
            and (below / "mode/file").stat().st_mode & 0o777 == 0o640
            and (below / "cut/file").stat().st_size == 7
            and "user.x" in os.listxattr(file)
        )

    with stopped(b):
        pending = [calls(each) for each in work]
        wait_for(done, "all of it is done here")
        assert not any(each.done() for each in pending)
        restart(a)
        a.call("become_primary", generation="")
    for each in pending:
        each.result(timeout=30)
    nobody_waits(a)
    a.wait_stream("synced", seconds=40)
    assert_equal_trees(a.backing, b.backing)


def test_requests_in_a_table_of_another_version_fail_and_do_not_hang(
    synced: Pair, calls: Callable[..., Future[object]]
) -> None:
    a = synced.a
    restart(a)
    pending = calls((a.path / "new").write_text, "for ever?")
    wait_for(lambda: a.state["hot"]["parked"], "it waits")
    a.kill()
    os.pwrite(a.table, (99).to_bytes(4, "little"), 8)
    a.table_name = f"{inflight.PREFIX}99"
    a.start(restored=True)
    with pytest.raises(OSError, match="Input/output error"):
        pending.result(timeout=30)
    a.call("become_primary", generation="")
    (a.path / "other").touch()
    nobody_waits(a)
    a.wait_stream("synced", seconds=40)
    assert_equal_trees(a.backing, synced.b.backing)


@pytest.mark.parametrize("directory", ["data", "not mounted any more"])
@pytest.mark.parametrize("state", [1, 2, 3])
def test_what_nobody_waits_for_is_not_carried_out(pair: Pair, directory: str, state: int) -> None:
    """Answered, but not yet taken from the table when the process died."""
    a = pair.a
    a.boot()
    a.begin()
    (a.path / "file").write_text("is new")
    a.kill()
    head = struct.unpack("<8sIIIIQQQ", os.pread(a.table, 48, 0))
    entry_size, entries, buffers, entries_at, buffers_at, room = head[2:]
    name = b"file\0"
    length = abi.IN_HEADER.size + len(name)
    request = abi.IN_HEADER.pack(length, abi.Op.UNLINK, STALE, abi.ROOT_ID, 0, 0, 0, 0, 0) + name
    entry = struct.pack("<IIQ", state, buffers - 1, inflight.identity(directory))
    where = entries_at + (entries - 1) * entry_size
    os.pwrite(a.table, request, buffers_at + (buffers - 1) * room)
    os.pwrite(a.table, entry + request[: abi.IN_HEADER.size], where)
    assert (inflight.identity(directory), STALE) in inflight.left_in(a.table)
    a.start(restored=True)
    a.call("become_primary", generation="")
    (a.path / "after").touch()
    assert (a.path / "file").read_text() == "is new"
    assert STALE not in [unique for _, unique in inflight.left_in(a.table)]
    nobody_waits(a)


def test_a_full_table_blocks_nobody(synced: Pair) -> None:
    a = synced.a
    (a.path / "file").write_text("read me")
    for number in range(MANY):
        (a.path / f"many-{number}").mkdir()
    restart(a)
    work = subprocess.Popen([sys.executable, "-c", MAKE_MANY, str(a.path), str(MANY)])
    wait_for(lambda: a.state["hot"]["parked"] == MANY, "all of them wait", 40)
    assert a.state["hot"]["unkept"] > 0
    assert (a.path / "file").read_text() == "read me"
    wait_for(lambda: "too many requests" in a.log_text(), "it is said")
    a.call("become_primary", generation="")
    assert work.wait(timeout=40) == 0
    nobody_waits(a)
