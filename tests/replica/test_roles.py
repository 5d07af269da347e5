# SPDX-License-Identifier: Apache-2.0
"""Who may write, when, and what the peer then has."""

from __future__ import annotations

import errno
import itertools
import os
import secrets
import threading
import time
from collections.abc import Callable

import pytest

from haoperator.replica._hotpath import mount, umount2
from tests.replica.pair import Node, Pair, wait_for
from tests.replica.trees import assert_equal_trees
from tests.replica.writer import Writer, lines_in


def fresh() -> str:
    return secrets.token_hex(8)


def read_only(node: Node) -> bool:
    try:
        (node.path / "probe").touch()
    except OSError as err:
        return err.errno == errno.EROFS
    (node.path / "probe").unlink()
    return False


def test_standby_shows_the_replica_and_refuses_every_change(synced: Pair) -> None:
    a, b = synced.a.path, synced.b.path
    (a / "file").write_text("one")
    (a / "dir").mkdir()
    assert (b / "file").read_text() == "one"
    (a / "file").write_text("two, longer")
    assert (b / "file").read_text() == "two, longer"
    (a / "dir" / "new").symlink_to("x")
    assert [p.name for p in (b / "dir").iterdir()] == ["new"]
    changes: list[Callable[[], object]] = [
        lambda: (b / "other").touch(),
        lambda: (b / "other").mkdir(),
        lambda: (b / "file").unlink(),
        lambda: (b / "dir").rmdir(),
        lambda: (b / "file").rename(b / "other"),
        lambda: os.link(b / "file", b / "other"),
        lambda: (b / "other").symlink_to("x"),
        lambda: (b / "file").chmod(0o600),
        lambda: os.chown(b / "file", 1, 1),
        lambda: os.utime(b / "file"),
        lambda: os.truncate(b / "file", 0),
        lambda: os.setxattr(b / "file", "user.x", b""),
        lambda: os.mkfifo(b / "other"),
        lambda: os.open(b / "file", os.O_RDWR),
        lambda: os.open(b / "file", os.O_WRONLY | os.O_TRUNC),
        lambda: os.open(b, os.O_TMPFILE | os.O_RDWR),
    ]
    for change in changes:
        with pytest.raises(OSError) as caught:
            change()
        assert caught.value.errno == errno.EROFS
    assert_equal_trees(synced.a.backing, synced.b.backing)


def test_node_before_its_first_start_waits(pair: Pair) -> None:
    pair.start()
    assert read_only(pair.a)
    assert pair.a.record["generation"] == ""
    with pytest.raises(RuntimeError, match="no generation to keep"):
        pair.a.call("become_primary", generation="")


def test_first_start_brings_both_directories_together(pair: Pair) -> None:
    (pair.a.path / "mine").write_text("kept")
    (pair.b.path / "theirs").write_text("overwritten by the first synchronisation")
    pair.replicate()
    assert [p.name for p in pair.b.path.iterdir()] == ["mine"]
    for node in (pair.a, pair.b):
        assert node.record["generation"] == pair.a.record["generation"] != ""
        assert node.record["consistent"]
        assert node.record["up_to_date"]
    assert pair.a.record["last_primary"]
    assert not pair.a.record["peer_outdated"]
    assert not pair.b.record["last_primary"]


def test_hand_over_both_ways_needs_no_resync(synced: Pair) -> None:
    a, b = synced.a, synced.b
    generation = a.record["generation"]
    for turn in range(4):
        (a.path / f"turn-{turn}").write_text("x")
        started = time.monotonic()
        a.call("become_secondary")
        assert b.stream == "handed-over"
        assert read_only(a)
        b.call("become_primary", generation="")
        b.wait_stream("synced", seconds=1)
        took = time.monotonic() - started
        assert took < 1.0
        assert a.stream == "synced"
        assert not a.record["last_primary"]
        assert b.record["last_primary"]
        (b.path / f"turned-{turn}").write_text("y")
        assert (a.path / f"turned-{turn}").read_text() == "y"
        a, b = b, a
    assert a.record["generation"] == generation == b.record["generation"]
    assert "resync" not in a.log_text().split("synced", 1)[1].replace("resync)", "")
    assert_equal_trees(a.backing, b.backing)


def test_hand_over_under_load_loses_nothing(synced: Pair) -> None:
    with Writer(synced.a.path / "log") as writer:
        for _ in range(3):
            writer.advances()
        synced.a.call("become_secondary")
    assert writer.error == "EROFS"
    synced.b.call("become_primary", generation="")
    synced.b.wait_stream("synced")
    assert lines_in(synced.b.path / "log") == writer.acknowledged


def test_nothing_stale_is_read_after_a_hand_over(synced: Pair) -> None:
    a, b = synced.a, synced.b
    (a.path / "dir").mkdir()
    (a.path / "dir" / "file").write_text("old")
    (a.path / "gone").write_text("x")
    with open(a.path / "dir" / "file") as kept_open:
        assert kept_open.read() == "old"
        a.call("become_secondary")
        b.call("become_primary", generation="")
        b.wait_stream("synced")
        (b.path / "gone").unlink()
        (b.path / "dir" / "file").write_text("new content")
        (b.path / "dir").rename(b.path / "moved")
        assert not (a.path / "gone").exists()
        assert (a.path / "moved" / "file").read_text() == "new content"
        assert not (a.path / "dir").exists()

        def fresh_through_the_old_handle() -> bool:
            kept_open.seek(0)
            return kept_open.read() == "new content"

        wait_for(fresh_through_the_old_handle, "an old handle shows the new content")
        (b.path / "moved" / "file").write_text("newest content")

        def still_fresh() -> bool:
            kept_open.seek(0)
            return kept_open.read() == "newest content"

        wait_for(still_fresh, "and what comes later, too")


def test_lost_standby_holds_writes_until_the_operator_decides(synced: Pair) -> None:
    a = synced.a
    with Writer(a.path / "log") as writer:
        synced.b.power_cut()
        a.wait_stream("held")
        held_at = writer.acknowledged
        assert (a.path / "log").stat().st_size >= 16 * held_at  # reads are served
        created = threading.Thread(target=(a.path / "new").touch)
        created.start()
        wait_for(lambda: a.state["hot"]["parked"] > 0, "a change is parked")
        assert writer.acknowledged == held_at
        generation = fresh()
        a.call("continue_alone", generation=generation)
        writer.advances()
        created.join()
    assert a.stream == "alone"
    assert a.record["generation"] == generation
    assert a.record["peer_outdated"]
    assert lines_in(a.path / "log") == writer.acknowledged


def test_lost_standby_that_comes_back_releases_the_writes(synced: Pair) -> None:
    a, b = synced.a, synced.b
    with Writer(a.path / "log") as writer:
        b.power_cut()
        a.wait_stream("held")
        b.boot()
        a.wait_stream("synced")
        writer.advances()
    assert lines_in(b.path / "log") == writer.acknowledged
    assert_equal_trees(a.backing, b.backing)


def test_held_primary_that_must_step_down_fails_what_waits(synced: Pair) -> None:
    a = synced.a
    with Writer(a.path / "log") as writer:
        synced.b.power_cut()
        a.wait_stream("held")
        a.call("become_secondary")
    assert writer.error == "EROFS"
    assert a.record["last_primary"]
    assert read_only(a)


def test_interrupted_caller_does_not_wait_for_the_operator(synced: Pair) -> None:
    import signal
    import subprocess

    synced.b.power_cut()
    synced.a.wait_stream("held")
    touch = subprocess.Popen(["touch", str(synced.a.path / "new")])
    wait_for(lambda: synced.a.state["hot"]["parked"] > 0, "it is parked")
    touch.send_signal(signal.SIGKILL)
    assert touch.wait(timeout=5) == -signal.SIGKILL


def test_expired_permission_is_not_used(synced: Pair) -> None:
    a = synced.a
    synced.b.power_cut()
    a.wait_stream("held")
    before = a.record
    with pytest.raises(RuntimeError, match="expired"):
        a.call("continue_alone", generation=fresh(), within=-1)
    assert a.record == before
    assert a.stream == "held"


def test_permission_is_for_what_the_stream_was_when_it_was_given(pair: Pair) -> None:
    """The standby came back and was lost again while the permission was on its way."""
    a, b = pair.a, pair.b
    for node in (a, b):
        node.settings["detect_seconds"] = 10.0
    pair.replicate()
    b.power_cut()
    a.wait_stream("held")
    before = a.record
    # It is given for half of `detect`: this one was given three seconds ago.
    with pytest.raises(RuntimeError, match="since this was decided"):
        a.call("continue_alone", generation=fresh(), within=10.0 / 2 - 3)
    assert a.record == before
    a.call("continue_alone", generation=fresh(), within=60.0)
    a.wait_stream("alone")


def test_promotion_is_refused_while_a_primary_is_connected(synced: Pair) -> None:
    with pytest.raises(RuntimeError, match="connected"):
        synced.b.call("become_primary", generation=fresh())
    assert synced.b.stream == "synced"


def test_promotion_after_a_power_cut_has_every_acknowledged_write(synced: Pair) -> None:
    a, b = synced.a, synced.b
    with Writer(a.path / "log") as writer:
        for _ in range(5):
            writer.advances()
        a.power_cut()
    assert writer.error
    b.wait_stream("lost")
    generation = b.begin()
    assert b.record["history"][0] != generation
    assert lines_in(b.path / "log") >= writer.acknowledged
    (b.path / "after").write_text("written alone")
    a.boot()
    b.wait_stream("synced")
    assert (a.path / "after").read_text() == "written alone"
    assert a.record["generation"] == generation
    assert_equal_trees(a.backing, b.backing)


def test_diverged_nodes_refuse_each_other_and_change_nothing(synced: Pair) -> None:
    a, b = synced.a, synced.b
    a.power_cut()
    b.wait_stream("lost")
    b.begin()
    (b.path / "from b").touch()
    b.power_cut()
    a.boot()
    a.begin()
    (a.path / "from a").touch()
    b.boot()
    wait_for(lambda: "diverged" in a.state["refusal"], "a says why")
    assert (b.path / "from b").exists()
    assert not (b.path / "from a").exists()
    assert b.stream == "disconnected"


def test_stale_primary_is_refused(synced: Pair) -> None:
    a, b = synced.a, synced.b
    b.power_cut()
    a.wait_stream("held")
    a.call("continue_alone", generation=fresh())
    (a.path / "newer").touch()
    a.power_cut()
    b.boot()
    a.start()
    a.mount()
    b.call("become_primary", generation="", force=True)
    wait_for(lambda: "newer data" in b.state["refusal"], "b says why")
    assert (a.path / "newer").exists()


def test_marked_outdated_is_durable_and_closes_the_stream(synced: Pair) -> None:
    synced.b.call("mark_outdated")
    assert not synced.b.record["up_to_date"]
    assert synced.b.record["consistent"] or synced.b.stream == "resync"
    wait_for(lambda: synced.a.stream in ("held", "resync", "synced"), "a noticed")


def test_primary_may_go_on_alone_when_its_standby_has_marked_itself_outdated(synced: Pair) -> None:
    """In step again for the moment that it is still there, it would be waited for afterwards."""
    synced.b.call("mark_outdated")
    synced.a.wait_stream("held")
    wait_for(lambda: "outdated" in synced.a.state["refusal"], "b refuses")
    synced.a.call("continue_alone", generation=fresh())
    synced.a.wait_stream("synced")


def hears_again(node: Node) -> None:
    first = wait_for(lambda: node.state["heard"], "heard at all")
    wait_for(lambda: node.state["heard"] > first, "heard again")


def test_replicators_without_a_stream_hear_each_other(pair: Pair) -> None:
    pair.start()
    for node in (pair.a, pair.b):
        hears_again(node)
    pair.b.kill()
    last = pair.a.state["heard"]
    settled = wait_for(
        lambda: time.monotonic() - pair.a.state["heard"] > 1.2 and pair.a.state["heard"], "silence"
    )
    assert settled - last < 0.5


def test_fast_detection_is_given_several_knocks_within_detect(pair: Pair) -> None:
    for node in (pair.a, pair.b):
        node.settings["detect_seconds"] = 0.3
    pair.start()
    hears_again(pair.a)
    heard: set[float] = set()

    def often() -> bool:
        heard.add(pair.a.state["heard"])
        return len(heard) > 15

    wait_for(often, "fifteen knocks")
    gaps = sorted(after - before for before, after in itertools.pairwise(sorted(heard)))
    assert gaps[len(gaps) // 2] < 0.1, gaps


def test_dead_network_is_noticed_within_detect(synced: Pair) -> None:
    """A stopped process keeps its sockets open: only silence tells."""
    import signal

    assert synced.b.process is not None
    synced.b.process.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    try:
        synced.a.wait_stream("held")
        assert time.monotonic() - started < 1.0 + 0.3
    finally:
        synced.b.process.send_signal(signal.SIGCONT)
    synced.a.wait_stream("synced")


def test_full_standby_is_outdated_and_the_application_goes_on(pair: Pair) -> None:
    a, b = pair.a, pair.b
    mount(b"tmpfs", os.fsencode(b.path), b"tmpfs", 0, b"size=4m")
    try:
        pair.replicate()
        done = threading.Thread(target=(a.path / "large").write_bytes, args=(bytes(10_000_000),))
        done.start()
        a.wait_stream("held")
        assert not b.record["up_to_date"]
        assert "No space left" in b.log_text()
        a.call("continue_alone", generation=fresh())
        done.join()
        assert (a.path / "large").stat().st_size == 10_000_000
        (a.path / "large").unlink()
        a.wait_stream("synced")
        assert a.log_text().count("stream resync") == 2  # not again and again
        assert_equal_trees(a.backing, b.backing)
    finally:
        pair.stop()
        umount2(os.fsencode(b.path), 2)
