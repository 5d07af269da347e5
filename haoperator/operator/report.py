# SPDX-License-Identifier: Apache-2.0
"""The operator's knowledge as one document: what `hactl status --json` prints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from haoperator.core.explain import explain
from haoperator.core.splitbrain import division
from haoperator.core.state import Contact, State, shown, shown_as
from haoperator.core.status import Role
from haoperator.core.verdict import may_promote
from haoperator.systemd import names
from tomlconfig import Config


def report(
    config: Config,
    state: State,
    links: Mapping[str, bool],
    directories: str,
    verification: str,
    yielded: str,
    units: Mapping[str, str],
) -> dict[str, Any]:
    """Everything an administrator asks for. `directories` is the replicator's JSON list,
    `verification` its JSON about the last one, `yielded` about data that lost, `units` maps unit
    names to systemd's ActiveState."""
    name, transition = shown(state)
    return {
        "state": str(name),
        "transition": transition,
        "reason": state.reason,
        "role": "primary" if state.role is Role.PRIMARY else "secondary",
        "node": state.policy.me,
        "peer": {
            "name": state.policy.peer,
            "state": peer_state(state),
            "reachable": state.contact in (Contact.HEARD, Contact.FELT),
            "ready": state.peer_heard is None or state.peer_heard.healthy,
        },
        "links": [{"name": link.name, "up": links.get(link.name, False)} for link in config.links],
        "verdict": may_promote(state).reason,
        "explanation": asdict(explain(state)),
        "maintenance": state.maintenance.on,
        "ready": state.healthy,
        "not_ready": state.not_ready,
        "contact": str(state.contact),
        "witness": str(state.witness),
        "stream": str(state.stream),
        "replication": json.loads(directories) if directories else [],
        "verification": json.loads(verification) if verification else {"state": "none"},
        "splitbrain": _splitbrain(state, yielded),
        "vips": [
            {
                "name": vip.name,
                "address": str(vip.address),
                "state": units.get(names.vip(vip.name), "unknown"),
            }
            for vip in config.vips
        ],
        "apps": [
            {
                "name": app.name,
                "kind": str(app.kind),
                "state": units.get(names.app(app.name), "unknown"),
            }
            for app in config.apps
        ],
        "checkers": [
            {
                "name": checker.name,
                "kind": str(checker.kind),
                "on": str(checker.on),
                "state": units.get(names.checker(checker.name), "unknown"),
            }
            for checker in config.checkers
        ],
        "generation": state.record.generation,
        "record": json.loads(state.record.to_json()),
        "configuration": config.digest,
    }


def _splitbrain(state: State, yielded: str) -> dict[str, Any] | None:
    divided = division(state)
    if divided is None:
        return None
    problem = json.loads(yielded)["problem"] if yielded else ""
    return {**asdict(divided), "problem": problem}


def peer_state(state: State) -> str:
    """The peer's state in an administrator's words, UNKNOWN while it does not tell."""
    peer = state.peer_heard
    if peer is None:
        return "UNKNOWN"
    return str(shown_as(peer.phase, peer.stream)[0])
