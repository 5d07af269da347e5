# SPDX-License-Identifier: Apache-2.0
"""The chaos soak: random faults that overlap, and a checker in the manner of Jepsen.

`make soak` (an hour; `SECONDS=`, `SEED=`). Clients add to and read from a set in Redis and
one in PostgreSQL through the virtual IP; both nodes append to one file, if they may. In the
end all is mended, and then nothing acknowledged is missing, no read was stale, and both
nodes show the same tree.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from . import applications, trees
from .appends import Appends
from .chaos_plan import Disturbance, Kind, Round
from .cluster import DATA, Pair
from .command import LabError, clean_environment, run
from .customer import VIP
from .lab import Lab
from .node import Node
from .paths import Cut
from .place import BUILD
from .sequence import Operation, problems
from .standing import Standing
from .waiting import until

CLIENT = Path(__file__).with_name("sequence_client.py")
PATIENCE = 180.0
"""Seconds until the pair serves again when all is mended."""
COMMAND = 40.0
"""Seconds for a command on a node that may be in any state."""
ANY_CHANGES = 1 << 30


class Sequence:
    """A running client of one kind, and what it saw."""

    def __init__(self, pair: Pair, kind: str, directory: Path) -> None:
        self.pair = pair
        self.kind = kind
        self.log = directory / f"{kind}.log"
        self.log.write_text("")
        program = ("/usr/bin/python3", str(CLIENT), kind, VIP, str(self.log))
        self.process = subprocess.Popen(
            pair.lab.in_client(*program), stdin=subprocess.PIPE, env=clean_environment()
        )

    def operations(self) -> list[Operation]:
        text = self.log.read_text()
        lines = text[: text.rfind("\n") + 1].splitlines()
        return [Operation.parse(line) for line in lines]

    def wait(self, more: int, within: float) -> None:
        """Returns when `more` additions and a read have been answered."""

        def answered() -> tuple[int, int]:
            done = [o for o in self.operations() if o.answered]
            return sum(o.kind == "add" for o in done), sum(o.kind == "read" for o in done)

        adds, reads = answered()
        until(
            lambda: (now := answered())[0] >= adds + more and now[1] > reads,
            f"{more} more answers of {self.kind}",
            within=within,
            every=0.3,
            hint=self.pair.explain,
        )

    def end(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def final(self) -> list[int]:
        """All that is there."""
        if self.kind == "redis":
            command = ("redis-cli", "zrange", "sequence", "0", "-1")
            return [int(n) for n in self.pair.primary.exec(*command).stdout.split()]
        asked = psql(self.pair, "select number from sequence")
        return [int(n) for n in asked.split()]

    def problems(self) -> list[str]:
        return [f"{self.kind}: {p}" for p in problems(self.operations(), self.final())]


def psql(pair: Pair, statement: str) -> str:
    """What PostgreSQL at the virtual IP answers; nothing if it does not."""
    address = f"host={VIP} user=postgres connect_timeout=2"
    asked = pair.lab.in_client("psql", "-AtXqd", address, "-c", statement)
    return run(*asked, check=False).stdout


class Chaos:
    """A pair under faults."""

    def __init__(self, pair: Pair, directory: Path, say: Callable[[str], None]) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.pair = pair
        self.directory = directory
        self.say = say
        self.cuts: list[Disturbance] = []
        self.faults = 0
        self.appends = Appends(pair, "chaos", directory)
        self.sequences: list[Sequence] = []

    @contextmanager
    def clients(self) -> Iterator[None]:
        """Working clients and writers for the length of the block."""
        until(self.ready, "both databases", within=90, hint=self.pair.explain)
        self.pair.primary.exec("redis-cli", "del", "sequence")
        psql(self.pair, "drop table if exists sequence; create table sequence (number int)")
        psql(self.pair, "create index on sequence (number)")
        self.sequences = [Sequence(self.pair, k, self.directory) for k in ("redis", "postgresql")]
        try:
            self.appends.begin()
            self.served(within=60)
            yield
        finally:
            for sequence in self.sequences:
                sequence.end()
            self.appends.end()

    def ready(self) -> bool:
        """Whether both databases answer at all."""
        pinged = self.pair.primary.exec("redis-cli", "ping", check=False).stdout
        return pinged == "PONG\n" and psql(self.pair, "select 1") == "1\n"

    def served(self, within: float) -> None:
        """Returns when every client is served, and a node may append."""
        for sequence in self.sequences:
            sequence.wait(20, within)
        self.appends.wait(within=within)

    def play(self, turn: Round) -> None:
        """The faults of a round, each begun and ended at its time, and all of them mended."""
        moments = [(d.begin, True, d) for d in turn.faults] + [
            (d.end, False, d) for d in turn.faults
        ]
        begin = time.monotonic()
        for at, starts, fault in sorted(moments, key=lambda m: m[:2]):
            time.sleep(max(0.0, begin + at - time.monotonic()))
            self.say(f"{'begins' if starts else 'ends'}: {fault}")
            node = self.pair.lab.nodes[fault.node]
            try:
                (self.begin if starts else self.end)(fault, node)
            except LabError as err:
                # A command on a node that is stopped, cut off or about to die may fail or hang.
                self.say(f"  {err.message.splitlines()[0][:200]}")
            self.faults += starts
        self.mend()

    def begin(self, fault: Disturbance, node: Node) -> None:
        if not node.powered:
            return
        match fault.kind:
            case Kind.CUT:
                self.cuts.append(fault)
                self.cut()
            case Kind.POWER:
                node.power_cut()
            case Kind.REBOOT:
                node.shutdown()
            case Kind.LEAVE:
                node.exec("hactl", "stop", timeout=COMMAND)
            case Kind.SWAP:
                node.exec("hactl", "swap", timeout=COMMAND)
            case Kind.KILL | Kind.STOP:
                name = "KILL" if fault.kind is Kind.KILL else "STOP"
                self.signal(node, name, fault.units)
            case Kind.RESTART:
                node.exec("systemctl", "restart", *fault.units, timeout=COMMAND)
            case Kind.DOCKER:
                node.exec("systemctl", "stop", "docker.service", "docker.socket", timeout=COMMAND)
            case Kind.APPLICATION:
                kill = "docker ps -q | xargs -r docker kill -s KILL"
                node.exec("sh", "-c", kill, timeout=COMMAND)

    def end(self, fault: Disturbance, node: Node) -> None:
        if fault in self.cuts:
            self.cuts.remove(fault)
            self.cut()
        if not node.powered:
            if fault.kind in (Kind.POWER, Kind.REBOOT):
                self.boot(node)
            return
        match fault.kind:
            case Kind.LEAVE:
                node.exec("hactl", "start", timeout=COMMAND)
            case Kind.STOP:
                self.signal(node, "CONT", fault.units)
            case Kind.DOCKER:
                node.exec("systemctl", "start", "docker", timeout=COMMAND)

    def signal(self, node: Node, name: str, units: tuple[str, ...]) -> None:
        kill = ("systemctl", "kill", "--kill-who=main", f"--signal={name}")
        node.exec(*kill, *units, timeout=COMMAND)

    def boot(self, node: Node) -> None:
        node.boot()
        self.appends.watch(node)
        self.cut()  # its cables are new

    def cut(self) -> None:
        """Makes the cuts that are due, and no others."""
        network = self.pair.lab.network
        network.heal()
        for fault in self.cuts:
            node = self.pair.lab.nodes[fault.node]
            for path in fault.paths:
                if node.powered:
                    Cut(path, fault.direction).make(network, node)

    def mend(self) -> None:
        self.cuts.clear()
        self.cut()
        for node in self.pair.nodes:
            if not node.powered:
                self.boot(node)
            node.exec("systemctl", "start", "docker", "ha-cluster.target", timeout=90)

    def whole(self) -> None:
        """Returns when the pair is PRIM and SECOND, and every client is served."""
        self.pair.wait_healthy(PATIENCE)
        self.served(PATIENCE)

    def problems(self) -> list[str]:
        """What of the promises was not kept; the pair is whole, and the clients have ended."""
        found = self.appends.problems(ANY_CHANGES)
        for sequence in self.sequences:
            found += sequence.problems()
        # Nobody writes any more.
        self.pair.primary.exec("sync", "-f", DATA, timeout=60)
        one, two = (trees.tree_of(node, DATA) for node in self.pair.nodes)
        return found + one.differences(two)[:5]

    def summary(self) -> str:
        told = [f"{len(self.appends.acknowledged())} appends"]
        for sequence in self.sequences:
            done = [o for o in sequence.operations() if o.answered]
            adds = sum(o.kind == "add" for o in done)
            told.append(f"{sequence.kind}: {adds} additions, {len(done) - adds} reads")
        return ", ".join(told)


def unleash(pair: Pair, seconds: float, seed: str, first: int, directory: Path) -> Chaos:
    """Faults for `seconds`. Raises LabError with all that was not kept, or if the pair does
    not become whole when all is mended."""
    directory.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()

    def say(text: str) -> None:
        line = f"{time.monotonic() - begin:8.2f} {time.monotonic():.3f} {text}"
        with (directory / "chaos.log").open("a") as log:
            log.write(f"{line}\n")

    chaos = Chaos(pair, directory, say)
    with chaos.clients():
        number = first
        while time.monotonic() - begin < seconds:
            turn = Round.of(seed, number)
            print(f"{time.monotonic() - begin:6.0f} s  round {number}: {turn}", flush=True)
            chaos.play(turn)
            if turn.rests:
                chaos.whole()
            number += 1
        chaos.whole()
    if found := chaos.problems():
        raise LabError("\n".join(found), str(directory))
    return chaos


def soak(seconds: float, seed: str, first: int, directory: Path = BUILD / "soak") -> int:
    """The soak on a lab of its own; returns the exit status."""
    lab = Lab()
    pair = Standing(lab)
    print(f"seed {seed}", flush=True)
    try:
        pair.new(owned=True)
        applications.set_up(pair)
        chaos = unleash(pair, seconds, seed, first, directory)
    except LabError as err:
        pair.save_evidence(directory)
        print(f"failed: {err}\nseed {seed}, evidence: {directory}", flush=True)
        return 1
    finally:
        lab.down()
    print(f"{chaos.faults} faults; {chaos.summary()}; nothing lost, nothing stale", flush=True)
    return 0
