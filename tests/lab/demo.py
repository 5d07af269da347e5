# SPDX-License-Identifier: Apache-2.0
"""`sudo make demo`: two empty servers, a cluster on them, a power cut, a failback, a swap.

A client increments keys of a Redis through the virtual IP all the while, and
remembers what was acknowledged. The cluster is left running.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from . import trees
from .bus import BusRecord, recording
from .cluster import DATA, Pair, package
from .command import LabError
from .customer import Customer, customer
from .lab import Lab
from .place import BUILD, PROJECT
from .swap import Swap, swap_by_isolate
from .takeover import Takeover, cut_the_primary
from .telling import Telling
from .timeline import Picture, draw, spans_of
from .waiting import until

OUT = BUILD / "demo"
MEBIBYTES = 64
"""Size of the file that is there beside Redis' data, so that a full copy would show."""

LOOK_AROUND = """\
The cluster keeps running. Look around in it:
  make lab-shell NODE=a        a shell in node-a, and NODE=b in node-b; there:
    hactl status                 both nodes, the data, the virtual IP, the application
    hactl why                    what the last decision was based on
    systemctl list-dependencies ha-primary.target
    busctl tree org.haoperator1
    journalctl -u haoperator
  make lab-down                remove it"""


@dataclass(slots=True)
class Demo:
    """One run. What is measured is collected here for the report and the picture."""

    lab: Lab = field(default_factory=Lab)
    tell: Telling = field(default_factory=Telling)
    power: list[tuple[float, str]] = field(default_factory=list)
    first_states: dict[str, str] = field(default_factory=dict)
    begin: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def pair(self) -> Pair:
        return Pair(self.lab)

    def run(self) -> None:
        self.set_up()
        with (
            recording(self.lab, OUT) as record,
            customer(self.lab, OUT / "client.log") as client,
        ):
            self.begin = time.time()
            self.first_states = self.pair.states()
            self.start_client(client)
            takeover = self.power_cut(client, record)
            self.failback(client, record)
            swap = self.swap(client, record)
            self.compare(client)
            self.picture(client, record, takeover, swap)

    def set_up(self) -> None:
        tell, pair = self.tell, self.pair
        with tell.step("The Debian package"):
            deb = package()
            tell.say(str(deb.relative_to(PROJECT)))
        with tell.step("Two empty servers on one segment, with systemd, D-Bus and dockerd"):
            self.lab.up()
        with tell.step("apt install on both"):
            pair.install(deb)
        with tell.step("One key and one configuration on both: they wait to be told whose data"):
            pair.configure()
            pair.start()
        with tell.step("hactl promote on node-a: it is primary, node-b gets its data"):
            pair.promote(self.lab.a)
            trees.fill(self.lab.a, DATA, MEBIBYTES)
            tell.say(f"node-a PRIM, node-b SECOND, and {MEBIBYTES} MiB of files beside Redis' own")

    def start_client(self, client: Customer) -> None:
        with self.tell.step("A client increments keys through 10.0.0.100"):
            client.wait_acks(1)
            self.tell.mark("the client starts", client.seen().acks[0])
            client.wait_acks(750)
            acks = client.seen().acks
            self.tell.say(f"{len(acks) / (acks[-1] - acks[0]):.0f} acknowledged writes a second")

    def power_cut(self, client: Customer, record: BusRecord) -> Takeover:
        tell = self.tell
        with tell.step("Power cut: node-a, the primary, is dead"):
            takeover = cut_the_primary(self.pair, client, record)
            self.power.append((takeover.cut, "off"))
            tell.mark("power cut of node-a", takeover.cut)
            tell.mark("first write on node-b", takeover.first_write)
            cut = takeover.cut
            tell.fact("from the cut to detection", f"{takeover.detection:.3f} s")
            tell.fact("from the cut to the virtual IP's move", f"{takeover.vip - cut:.3f} s")
            tell.fact("from the cut to writable data", f"{takeover.writable - cut:.3f} s")
            tell.fact("from the cut to the first acknowledged write", f"{takeover.outage:.3f} s")
            self.none_lost(client)
            self.pair.wait({"node-b": "ALONE"}, within=10)
        self.facts["takeover"] = takeover.as_dict()
        return takeover

    def failback(self, client: Customer, record: BusRecord) -> None:
        tell, a, b = self.tell, self.lab.a, self.lab.b
        with tell.step("While node-a is away, files change on node-b"):
            before = trees.tree_of(b, DATA)
            trees.change(b, DATA)
            client.wait_acks(500)
            changed = trees.tree_of(b, DATA).bytes_changed_since(before)
            tell.fact("content changed, in blocks of 4 KiB", mebi(changed))
        with tell.step("node-a gets power again, and is brought up to date under the client"):
            booted = tell.mark("node-a gets power")
            self.power.append((booted, "boot"))
            a.boot()
            record.listen(a)
            self.pair.wait({"node-a": "SECOND", "node-b": "PRIM"}, within=120)
            done = tell.mark("resynchronised")
            seen = client.seen()
            gap = seen.longest_gap(booted, done)
            told = self.pair.replication(b)
            copied, compared = told["resync_copied_bytes"], told["resync_compared_bytes"]
            tell.fact("from power to SECOND", f"{done - booted:.1f} s")
            tell.fact("bytes compared by hash", mebi(compared))
            tell.fact("bytes copied / bytes changed", f"{mebi(copied)} / {mebi(changed)}")
            tell.fact("longest pause that the client saw", f"{(gap[1] - gap[0]) * 1e3:.0f} ms")
            self.none_lost(client)
        self.facts["failback"] = {
            "seconds": done - booted,
            "changed_bytes": changed,
            "copied_bytes": copied,
            "compared_bytes": compared,
            "longest_pause_seconds": gap[1] - gap[0],
        }

    def swap(self, client: Customer, record: BusRecord) -> Swap:
        tell = self.tell
        with tell.step("systemctl isolate ha-primary.target on node-a, the standby: a swap"):
            client.wait_acks(300)
            swap = swap_by_isolate(self.pair, self.lab.a, client, record)
            tell.mark("swap asked for", swap.asked)
            tell.mark("first write on node-a", swap.first_write)
            tell.fact("interruption that the client saw", f"{swap.interruption * 1e3:.0f} ms")
            tell.fact("the command returned after", f"{swap.command_seconds:.3f} s")
            client.wait_acks(300)
            self.none_lost(client)
        self.facts["swap"] = swap.as_dict()
        return swap

    def compare(self, client: Customer) -> None:
        tell, pair = self.tell, self.pair
        with tell.step("The two copies, compared through the mounts"):
            report = client.pause()
            tell.mark("the client ends")
            until(
                lambda: pair.replication(pair.primary)["out_of_sync_bytes"] == 0,
                "no byte out of sync",
                within=20,
            )
            one, two = trees.tree_of(self.lab.a, DATA), trees.tree_of(self.lab.b, DATA)
            different = one.differences(two)
            tell.fact("entries, bytes", f"{len(one.entries)}, {mebi(one.bytes)}")
            tell.fact("node-a", one.digest[:32])
            tell.fact("node-b", two.digest[:32])
            tell.fact(
                "content, owner, mode, xattrs, times",
                f"{len(different)} differences" if different else "equal",
                good=not different,
            )
            if different:
                raise LabError("the copies differ:\n" + "\n".join(different[:20]), DATA)
            tell.fact("acknowledged writes in all", str(report["acks"]))
            self.none_lost(client)
        self.facts["trees"] = {"equal": True, "entries": len(one.entries), "bytes": one.bytes}
        self.facts["acknowledged"], self.facts["lost"] = report["acks"], report["lost"]

    def none_lost(self, client: Customer) -> None:
        lost = client.seen().lost
        self.tell.fact("acknowledged writes lost", str(lost), good=lost == 0)
        if lost:
            raise LabError(f"{lost} acknowledged writes are lost", str(client.log))

    def picture(self, client: Customer, record: BusRecord, takeover: Takeover, swap: Swap) -> None:
        with self.tell.step("The timeline"):
            end, signals = time.time(), record.signals()
            spans = {
                node.name: spans_of(
                    node.name,
                    self.first_states[node.name],
                    self.begin,
                    end,
                    signals,
                    self.power if node is self.lab.a else [],
                )
                for node in self.pair.nodes
            }
            zooms = [
                ("The power cut", *takeover.window(), takeover.moments()),
                ("The swap", *swap.window(), swap.moments()),
            ]
            events = self.tell.events
            draw(
                Picture(self.begin, end, spans, client.seen(), events, zooms), OUT / "timeline.png"
            )
            report = {"steps": self.tell.steps, **self.facts}
            (OUT / "report.json").write_text(json.dumps(report, indent=1) + "\n")
            self.tell.say(f"{OUT.relative_to(PROJECT)}/timeline.png and report.json")


def mebi(count: int) -> str:
    return f"{count / (1 << 20):.2f} MiB"


def fail(demo: Demo, err: LabError) -> None:
    """Says what went wrong, and saves what there is to look at. The nodes stay as they are."""
    sys.stdout.flush()
    print(f"\nThe demonstration failed: {err}", file=sys.stderr)
    try:
        demo.pair.save_evidence(OUT / "evidence")
    except LabError as second:
        print(f"(evidence is incomplete: {second.message})", file=sys.stderr)
    where = (OUT / "evidence").relative_to(PROJECT)
    print(
        f"\nLook at {where}/ (both journals, the states, the consoles), or at the nodes\n"
        "themselves, which are as they were: make lab-shell NODE=a, make lab-shell NODE=b.\n"
        "Remove them with make lab-down.",
        file=sys.stderr,
    )


def main() -> int:
    OUT.mkdir(parents=True, exist_ok=True)
    demo = Demo()
    try:
        demo.run()
    except LabError as err:
        fail(demo, err)
        return 1
    print(f"\n{LOOK_AROUND}\n\nAll of it took {time.monotonic() - demo.tell.begin:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
