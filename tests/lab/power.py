# SPDX-License-Identifier: Apache-2.0
"""A power cut and what must follow: the pair whole again, every promise kept, equal trees.

Who is cut when, and how the power comes back, is in the plan; what the design makes of
it (docs/architecture.md, section 7) is here: who takes over, and who waits for whom.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from . import trees
from .cluster import DATA, Pair
from .command import LabError
from .customer import Customer
from .node import Node
from .power_plan import Kind, Outcome, Plan, Return
from .promises import Promises
from .waiting import until

REPLICATOR = (
    "org.haoperator1.Replicator",
    "/org/haoperator1/replicator",
    "org.haoperator1.Replicator",
)
PATIENCE = 180.0
"""Seconds for anything that the pair does by itself; a tenth of them on a quiet machine."""
MEBIBYTES = 48
"""What changes while a node is away, so that bringing it back takes a while."""
CHANGE = """
import os, sys
fd = os.open(sys.argv[1] + "/much", os.O_WRONLY | os.O_CREAT)
for i in range(int(sys.argv[2])):
    os.pwrite(fd, os.urandom(1 << 20), i << 20)
os.fsync(fd)
"""


class Cuts:
    """One pair, whose power is cut again and again while it serves two kinds of writers."""

    def __init__(self, pair: Pair, client: Customer, directory: Path) -> None:
        self.pair = pair
        self.client = client
        self.directory = directory
        self.runs: list[Promises] = []
        self.notes: list[str] = []
        self.powered = 0.0

    def cut(self, plan: Plan) -> Outcome:
        """One cut, up to PRIM and SECOND with equal trees. Raises LabError if anything that
        was promised is missing, or if the pair does not come back as it should."""
        self.notes = []
        begun = len(self.runs)
        self.pair.wait_healthy(PATIENCE)
        primary, standby = self.pair.primary, self.pair.standby
        self.write_on(primary, plan.number).wait(plan.promises)
        match plan.kind:
            case Kind.PRIMARY:
                died = self.fail_over(plan, primary, standby)
            case Kind.STANDBY:
                died = self.fail_standby(primary, standby)
            case Kind.BOTH:
                died = self.fail_both(plan, primary, standby)
            case Kind.PRIMARY_AGAIN | Kind.STANDBY_AGAIN:
                died = self.fail_again(plan, primary, standby)
        seconds = time.monotonic() - self.powered
        self.compare()
        made = sum(len(run.lines()) for run in self.runs[begun:])
        self.forget()
        return Outcome(plan, died, ", ".join(self.notes), made, seconds)

    def fail_over(self, plan: Plan, primary: Node, standby: Node) -> str:
        primary.power_cut()
        self.goes_on(standby, plan)
        self.power(primary)
        self.whole(standby)
        self.stop_writing()
        return primary.name

    def fail_standby(self, primary: Node, standby: Node) -> str:
        standby.power_cut()
        self.pair.wait({primary.name: "ALONE"}, PATIENCE)
        self.runs[-1].wait(100)
        self.power(standby)
        self.whole(primary)
        self.stop_writing()
        return standby.name

    def fail_both(self, plan: Plan, primary: Node, standby: Node) -> str:
        """Neither went on without the other, so the one that was primary is it again, but does
        not know that before it hears the other: only an administrator could know more."""
        self.pair.lab.on_both(lambda node: node.power_cut())
        self.died()
        match plan.back:
            case Return.TOGETHER:
                self.pair.lab.on_both(lambda node: node.boot())
                self.powered = time.monotonic()
            case Return.PRIMARY_FIRST:
                self.waits_alone(primary)
                self.power(standby)
            case Return.STANDBY_FIRST:
                self.waits_alone(standby)
                self.power(primary)
            case Return.STANDBY_FORCED:
                self.waits_alone(standby)
                standby.exec("hactl", "promote", "--force", timeout=90)
                self.goes_on(standby, plan)
                self.power(primary)
                self.whole(standby)
                self.stop_writing()
                return "both"
        self.whole(primary)
        self.check(primary)
        self.client.wait_acks(20, PATIENCE)
        return "both"

    def fail_again(self, plan: Plan, primary: Node, standby: Node) -> str:
        """The first cut leaves one node behind; the second one comes while it is brought back."""
        behind, current = (primary, standby) if plan.first == "primary" else (standby, primary)
        behind.power_cut()
        if plan.first == "primary":
            self.goes_on(current, plan)
        self.pair.wait({current.name: "ALONE"}, PATIENCE)
        current.exec("python3", "-c", CHANGE, DATA, str(MEBIBYTES), timeout=120)
        self.power(behind)
        met = self.resync_reaches(current, plan.progress)
        if plan.kind is Kind.STANDBY_AGAIN:
            behind.power_cut()
            self.notes.append(met)
            self.pair.wait({current.name: "ALONE"}, PATIENCE)
            self.runs[-1].wait(20)
            self.power(behind)
            self.whole(current)
            self.stop_writing()
            return f"{behind.name}, {behind.name}"
        current.power_cut()
        self.died()
        self.notes.append(met)
        if self.takes_over_or_waits(behind):
            # The resync was over: this is a takeover like any other.
            self.notes.append(f"{behind.name} was complete and took over")
            self.goes_on(behind, plan)
            self.power(current)
            self.whole(behind)
            self.stop_writing()
        else:
            self.power(current)
            self.whole(current)
            self.check(current)
            self.client.wait_acks(20, PATIENCE)
        return f"{behind.name}, {current.name}"

    def write_on(self, node: Node, number: int) -> Promises:
        name = f"{number}-{len(self.runs)}"
        run = Promises(node, name, self.directory / f"promises-{name}.log")
        self.runs.append(run)
        return run

    def died(self) -> None:
        """The writer's node lost its power. What the writer saw in its last milliseconds does
        not count: its processes died one after the other."""
        self.runs[-1].end()

    def stop_writing(self) -> None:
        """Ends a writer whose node kept its power: it must have met no error at all."""
        run = self.runs[-1]
        run.wait(20)
        self.client.wait_acks(20, PATIENCE)
        run.end()
        if refused := run.refused():
            raise LabError(f"the application met an error: {refused}", str(run.log))

    def goes_on(self, survivor: Node, plan: Plan) -> None:
        """The other node serves: all is there, the application runs, more is promised."""
        self.died()
        self.pair.wait({survivor.name: "ALONE"}, PATIENCE)
        self.check(survivor)
        self.write_on(survivor, plan.number).wait(50)
        self.client.wait_acks(20, PATIENCE)

    def waits_alone(self, node: Node) -> None:
        """It gets power, the other one does not, and it has seen that: it must WAIT."""
        self.power(node)
        if (state := self.settled(node)["state"]) != "WAIT":
            raise LabError(f"{node.name} is {state}: it cannot know that it may", "hactl why")

    def takes_over_or_waits(self, node: Node) -> bool:
        """Whether a node serves after its primary died in the middle of a resync. It may only
        if it had been told that it has everything, and then it must."""
        status = self.settled(node)
        record, serves = status["record"], str(status["state"]) == "ALONE"
        if serves == (record["consistent"] and record["up_to_date"]):
            return serves
        raise LabError(f"{node.name} is {status['state']}: {record}", self.pair.explain())

    def settled(self, node: Node) -> dict[str, Any]:
        """The status of a node once it has seen that its peer is dead, and has drawn its
        conclusion: it serves, or it says whom it waits for."""

        def conclusion() -> dict[str, Any]:
            shown = node.exec("hactl", "status", "--json", check=False)
            status = dict(json.loads(shown.stdout)) if shown.returncode == 0 else {}
            waits = ("hactl promote", "mixture", "stale")
            verdict = status.get("verdict", "")
            match status.get("state"):
                case "ALONE":
                    return status
                case "WAIT" if status["contact"] == "silent" and any(w in verdict for w in waits):
                    return status
            return {}

        return until(
            conclusion,
            f"{node.name} knows that its peer is dead",
            within=PATIENCE,
            hint=self.pair.explain,
        )

    def resync_reaches(self, primary: Node, progress: float) -> str:
        """Returns when the resync is that far, or over, and says which."""

        def there() -> str:
            stream, directories = self.replicator(primary, "Stream", "Directories")
            reached = float(json.loads(directories)[0]["resync_progress"])
            if stream == "synced":
                return "the resync was over"
            return f"the resync was at {reached:.0%}" if reached >= progress else ""

        until(
            lambda: self.replicator(primary, "Stream") != ["alone"],
            "a resync",
            within=PATIENCE,
            every=0.002,
            hint=self.pair.explain,
        )
        return until(there, "its progress", within=PATIENCE, every=0.002, hint=self.pair.explain)

    def replicator(self, node: Node, *properties: str) -> list[str]:
        shown = node.exec("busctl", "--json=short", "get-property", *REPLICATOR, *properties)
        return [str(json.loads(line)["data"]) for line in shown.stdout.splitlines()]

    def power(self, node: Node) -> None:
        node.boot()
        self.powered = time.monotonic()

    def whole(self, primary: Node) -> None:
        """Returns when `primary` is PRIM, and its peer SECOND."""
        other = self.pair.lab.other(primary)
        self.pair.wait({primary.name: "PRIM", other.name: "SECOND"}, PATIENCE)

    def check(self, node: Node) -> None:
        """All that was ever promised, those runs too that ended before."""
        for run in self.runs:
            run.check(node)

    def compare(self) -> None:
        """Nobody writes; then both nodes show the same, and all that was promised."""
        if lost := self.client.pause()["lost"]:
            raise LabError(f"{lost} acknowledged increments are lost", str(self.client.log))
        primary, standby = self.pair.primary, self.pair.standby
        self.check(primary)
        self.check(standby)
        until(
            lambda: self.pair.replication(primary)["out_of_sync_bytes"] == 0,
            "no byte out of sync",
            within=PATIENCE,
        )
        primary.exec("sync", "-f", DATA, timeout=PATIENCE)
        one, two = (trees.tree_of(node, DATA) for node in (primary, standby))
        if different := one.differences(two):
            shown = "\n".join(different[:40])
            raise LabError(f"{primary.name} and {standby.name} differ:\n{shown}", DATA)
        self.client.order("resume")

    def forget(self) -> None:
        """Keeps the last two runs, so that what is old is seen to last, but not for ever."""
        for run in self.runs[:-2]:
            run.remove(self.pair.primary)
        del self.runs[:-2]

    def close(self) -> None:
        for run in self.runs:
            run.process.kill()
            run.process.wait()
