# SPDX-License-Identifier: Apache-2.0
"""How a report looks on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from haoperator.cli.comparison import outcome, summary

EXIT_CODES = {"STOP": 0, "WAIT": 1, "ALONE": 2, "PRIM": 3, "SECOND": 4}
"""Exit codes of `hactl status -q`, as SafeKit's users know them. Anything else is 5."""

OTHER_EXIT_CODE = 5

_COLOURS = {"PRIM": 32, "SECOND": 32, "ALONE": 32, "WAIT": 31, "STOP": 31}
_ORANGE = 33


def without_operator(node: str, takes_part: bool) -> dict[str, Any]:
    """The report of a node on which no operator runs: it left the cluster, or, if it takes part,
    its operator is between two starts and disturbs nothing."""
    if takes_part:
        state, transition = "TRANSITION", "operator restarting"
        reason = "the operator is not there at the moment; look at 'systemctl status haoperator'"
    else:
        state, transition = "STOP", ""
        reason = "the operator does not run here; 'hactl start' joins the cluster"
    return {
        "state": state,
        "transition": transition,
        "reason": reason,
        "role": "secondary",
        "node": node,
        "peer": {"name": "", "state": "UNKNOWN", "reachable": False},
        "links": [],
        "replication": [],
        "vips": [],
        "apps": [],
        "checkers": [],
        "generation": "",
    }


def exit_code(report: dict[str, Any]) -> int:
    return EXIT_CODES.get(report["state"], OTHER_EXIT_CODE)


def text(report: dict[str, Any], colour: bool) -> str:
    """A page that fits a terminal: the two nodes first, then what is below them."""
    return "\n".join(_lines(report, colour))


def _lines(report: dict[str, Any], colour: bool) -> Iterator[str]:
    state = report["transition"] or report["state"]
    yield f"{report['node']:<16} {_painted(state, report['state'], colour)}"
    peer = report["peer"]
    if peer["name"]:
        heard = "" if peer["reachable"] else "  (not reachable)"
        heard += "" if peer.get("ready", True) else "  (not ready to take over)"
        yield f"{peer['name']:<16} {_painted(peer['state'], peer['state'], colour)}{heard}"
    yield f"because          {report['reason']}"
    if report["role"] != "primary" and not report.get("ready", True):
        trouble = report["not_ready"] or "an application failed too often here"
        yield f"to take over     not ready: {trouble}"
    if report.get("maintenance"):
        yield "maintenance      on: nothing moves by itself before 'hactl maintenance off'"
    yield from _splitbrain(report.get("splitbrain"))
    for link in report["links"]:
        yield f"link {link['name']:<11} {_up(link)}"
    for replica in report["replication"]:
        name, state, path = replica["name"], replica["state"], replica["path"]
        yield f"data {name:<11} {state:<12} {path}{_progress(replica)}"
    yield from _verification(report.get("verification", {}))
    for kind in ("vip", "app", "checker"):
        for part in report[f"{kind}s"]:
            extra = f"  {part['address']}" if kind == "vip" else ""
            state = part["state"]
            if kind == "checker" and state == "activating":  # again and again, until it is well
                state = f"not well: see 'systemctl status ha-checker@{part['name']}'"
            yield f"{kind + ' ' + part['name']:<16} {state}{extra}"


def _splitbrain(told: dict[str, Any] | None) -> Iterator[str]:
    """Both wrote without each other, and it is not over."""
    if told is None:
        return
    for node, side in told["sides"]:
        yield f"split brain      {node} {side}"
    for way in told["ways"]:
        yield f"                 {way}"
    if told["problem"]:
        yield f"                 does not go on: {told['problem']}"


def _verification(told: dict[str, Any]) -> Iterator[str]:
    """The comparison that is under way, or the last one."""
    if told.get("state", "none") == "none":
        return
    if told["state"] in ("running", "repairing"):
        yield f"verify           {summary(told)}"
        return
    when = datetime.fromtimestamp(told["ended"]).strftime("%Y-%m-%d %H:%M")
    yield f"verify           {when}  {outcome(told)}"


def why(report: dict[str, Any], heard: dict[str, Any]) -> str:
    """The evidence behind the state, the rule that it follows, and what would change it.
    `heard` is what the heartbeat daemon knows by itself, with ages."""
    state = report["transition"] or report["state"]
    lines = [f"{report['node']} is {state}, because: {report['reason']}"]
    told = report.get("explanation")
    if told:
        lines += ["", *(f"{what:<20} {finding}" for what, finding in told["evidence"])]
        lines += _ages(heard) or [
            f"{'link ' + each['name']:<20} {_up(each)}" for each in report["links"]
        ]
        lines += ["", f"{'so':<20} {told['conclusion']}", f"{'rule':<20} {told['rule']}"]
        lines += [f"{'what would change it':<20} {change}" for change in told["changes"][:1]]
        lines += [f"{'':<20} {change}" for change in told["changes"][1:]]
    return "\n".join(lines)


def _ages(heard: dict[str, Any]) -> list[str]:
    lines = [
        f"{'link ' + link['name']:<20} {link['address']} heard {_ago(link['age'])}"
        for link in heard.get("links", [])
    ]
    lines += [
        f"{'witness ' + each['kind']:<20} {each['target']} answered {_ago(each['age'])}"
        for each in heard.get("witnesses", [])
    ]
    lines += [
        f"{'vip ' + vip['name']:<20} another machine answered {_ago(vip['age'])}"
        for vip in heard.get("vips", [])
    ]
    return lines


def _ago(age: float | None) -> str:
    return "never" if age is None else f"{age:.1f} s ago"


def _up(link: dict[str, Any]) -> str:
    return "up" if link["up"] else "DOWN"


def _progress(replica: dict[str, Any]) -> str:
    if replica["state"] != "resync":
        return ""
    done, left = replica["resync_progress"], replica["out_of_sync_bytes"]
    return f"  {done:.0%} compared, {left / 1e6:.1f} MB to go"


def _painted(word: str, state: str, colour: bool) -> str:
    if not colour:
        return word
    return f"\x1b[{_COLOURS.get(state, _ORANGE)}m{word}\x1b[0m"
