# SPDX-License-Identifier: Apache-2.0
"""`hactl why`: the evidence with its age, the rule, and what would change the decision."""

from __future__ import annotations

from dataclasses import asdict

from haoperator.cli import show
from haoperator.core import events as on
from haoperator.core.explain import explain
from haoperator.core.record import DataRecord
from haoperator.core.state import Policy, State
from haoperator.core.status import Role, Stream
from haoperator.core.step import step

HEARD = {
    "links": [
        {"name": "lan", "address": "10.0.0.1", "age": 7.04},
        {"name": "cable", "address": "10.1.0.1", "age": None},
    ],
    "witnesses": [{"kind": "ping", "target": "10.0.0.254", "age": 0.12}],
    "vips": [{"name": "front", "age": 0.2}],
}


def report() -> dict[str, object]:
    """Of a standby whose primary is silent, while its virtual IP still answers."""
    state = State(Policy("node-b", "node-a"), seed="s", now=100.0)
    record = DataRecord("1" * 16, up_to_date=True)
    for event, now in (
        (on.ReplicaChanged(Role.SECONDARY, Stream.SYNCED, record, 100.0), 100.0),
        (on.ReplicaChanged(Role.SECONDARY, Stream.LOST, record, 100.0), 100.0),
        (on.VipProbed(on.Probe.ANSWERED), 101.0),
        (on.PeerLost(), 102.0),
    ):
        state, _ = step(state, event, now)
    return {
        "state": "WAIT",
        "transition": "",
        "node": "node-b",
        "reason": state.reason,
        "explanation": asdict(explain(state)),
        "links": [{"name": "lan", "up": False}, {"name": "cable", "up": False}],
    }


def test_evidence_stands_with_its_age() -> None:
    said = show.why(report(), HEARD).splitlines()
    for line in (
        "heartbeat            node-a is silent on every link",
        "virtual IPs          another machine answers for one",
        "link lan             10.0.0.1 heard 7.0 s ago",
        "link cable           10.1.0.1 heard never",
        "witness ping         10.0.0.254 answered 0.1 s ago",
        "vip front            another machine answered 0.2 s ago",
        "so                   node-a is alive, and out of reach of this node",
    ):
        assert line in said
    assert "what would change it a link to node-a that works again" in said


def test_without_the_daemon_the_links_stand_as_the_operator_knows_them() -> None:
    assert "link lan             DOWN" in show.why(report(), {}).splitlines()


def test_node_that_left_says_no_more_than_that() -> None:
    left = show.without_operator("node-b", takes_part=False)
    assert show.why(left, {}).startswith("node-b is STOP, because: ")
