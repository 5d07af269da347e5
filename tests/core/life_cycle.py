# SPDX-License-Identifier: Apache-2.0
"""docs/life-cycle.md: the states as a picture, and what happens in them as stories.

    python3 -m tests.core.life_cycle

writes it. The picture is drawn from `EDGES`; a test lets two cores live through random
histories and finds that exactly these edges are taken.
"""

from __future__ import annotations

from pathlib import Path

from tests.core.stories import STORIES, title, transcript

PAGE = Path(__file__).parents[2] / "docs" / "life-cycle.md"

EDGES: dict[tuple[str, str], str] = {
    ("WAIT", "resynchronising"): "the primary is found, and has newer data",
    ("WAIT", "SECOND"): "in step with the primary",
    ("WAIT", "promoting"): "the right to be primary is proved, or forced",
    ("WAIT", "ALONE"): "the operator was restarted, and finds the role here",
    ("WAIT", "PRIM"): "the operator was restarted, and finds the role here",
    ("WAIT", "demoting"): "the operator was restarted, and finds half a role",
    ("WAIT", "STOP"): "leaves the cluster",
    ("resynchronising", "SECOND"): "everything is here",
    ("resynchronising", "WAIT"): "the stream is lost: the data is a mixture",
    ("resynchronising", "promoting"): "forced, without what is missing",
    ("resynchronising", "STOP"): "leaves the cluster",
    ("SECOND", "promoting"): "the primary is lost, or hands over",
    ("SECOND", "WAIT"): "the primary went on without this node",
    ("SECOND", "resynchronising"): "the stream was lost, and begins anew",
    ("SECOND", "STOP"): "leaves the cluster",
    ("promoting", "PRIM"): "the data is writable, the standby in step",
    ("promoting", "ALONE"): "the data is writable",
    ("promoting", "WAIT"): "refused, or cancelled",
    ("promoting", "SECOND"): "refused, or cancelled",
    ("promoting", "resynchronising"): "refused: a primary is there",
    ("promoting", "STOP"): "leaves the cluster",
    ("PRIM", "ALONE"): "the standby is lost",
    ("PRIM", "demoting"): "swap, or an application that fails too often",
    ("PRIM", "STOP"): "leaves the cluster",
    ("ALONE", "PRIM"): "the standby is in step",
    ("ALONE", "demoting"): "isolated, or the peer has newer data",
    ("ALONE", "WAIT"): "the role was stopped through systemd",
    ("ALONE", "STOP"): "leaves the cluster",
    ("demoting", "SECOND"): "handed over, nothing is missing",
    ("demoting", "WAIT"): "the data is read-only",
    ("demoting", "resynchronising"): "the peer is primary, and has newer data",
    ("demoting", "promoting"): "asked for again",
    ("demoting", "STOP"): "leaves the cluster",
}
"""What an administrator sees change, and because of what."""

_HEAD = """# The life cycle

Generated from the tests of the failover core, which run the shipped code:
`python3 -m tests.core.life_cycle`. A test fails when this page is not what the code does.

## States

STOP and WAIT are red on the console, what is under way is orange, and ALONE, PRIM and SECOND are
green.

"""


def page() -> str:
    """The whole page."""
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> WAIT: starts"]
    lines += [f"    {former} --> {to}: {why}" for (former, to), why in EDGES.items()]
    lines += ["    STOP --> [*]", "```", ""]
    lines += [
        "## Stories",
        "",
        "Seconds, `detect` being 2. Lines with `--` say what somebody did, or what broke; the",
        "others are what a node shows, and why. node-a is primary and node-b its standby when a",
        "story begins.",
        "",
    ]
    for story in STORIES:
        lines += [f"### {title(story)}", "", "```", transcript(story), "```", ""]
    return _HEAD + "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"written: {PAGE}")
