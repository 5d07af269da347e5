# SPDX-License-Identifier: Apache-2.0
"""Silence: told once, in time, and never because this process was absent."""

from __future__ import annotations

from haoperator.heartbeat.liveness import GRACE_BEATS, Liveness

DETECT, BEAT = 2.0, 0.2


def fresh() -> Liveness:
    return Liveness(["lan", "wan"], DETECT, BEAT, now=100.0)


def test_silence_from_the_start_is_told_once_after_detect() -> None:
    liveness = fresh()
    for beat in range(1, 11):
        liveness.ran(100.0 + beat * BEAT)
    assert not liveness.judge(101.9)
    assert not liveness.silent  # not known yet
    assert liveness.judge(102.0)
    assert liveness.silent
    assert not liveness.judge(110.0)
    assert liveness.deadline is None


def test_silence_is_told_detect_after_the_last_packet_on_any_link() -> None:
    liveness = fresh()
    assert liveness.heard("lan", 100.1)
    assert not liveness.heard("wan", 101.0)
    assert liveness.deadline == 103.0
    assert not liveness.judge(102.99)
    assert liveness.reachable
    assert liveness.judge(103.0)
    assert not liveness.reachable


def test_peer_that_is_heard_again_is_an_edge() -> None:
    liveness = fresh()
    liveness.heard("lan", 100.0)
    liveness.judge(102.0)
    assert liveness.heard("wan", 105.0)
    assert liveness.reachable
    assert liveness.deadline == 107.0


def test_each_link_has_its_own_level() -> None:
    liveness = fresh()
    liveness.heard("lan", 100.0)
    liveness.heard("wan", 101.5)
    assert liveness.links(101.9) == {"lan": True, "wan": True}
    assert liveness.links(102.0) == {"lan": False, "wan": True}
    assert liveness.links(103.5) == {"lan": False, "wan": False}


def test_own_absence_is_no_evidence() -> None:
    liveness = fresh()
    liveness.heard("lan", 100.0)
    liveness.ran(100.0)
    liveness.ran(130.0)  # the process, or its machine, stood still
    assert not liveness.judge(130.0)
    assert liveness.deadline == 130.0 + GRACE_BEATS * BEAT
    # The peer lives: it is heard within the grace.
    liveness.heard("lan", 130.15)
    assert not liveness.judge(130.4)


def test_peer_that_died_during_our_absence_is_silent_after_the_grace() -> None:
    liveness = fresh()
    liveness.heard("lan", 100.0)
    liveness.ran(100.0)
    liveness.ran(130.0)
    liveness.ran(130.2)
    assert not liveness.judge(130.39)
    assert liveness.judge(130.4)


def test_regular_beats_grant_nothing() -> None:
    liveness = fresh()
    liveness.heard("lan", 100.0)
    for beat in range(1, 11):
        liveness.ran(100.0 + beat * BEAT)
    assert liveness.judge(102.0)
