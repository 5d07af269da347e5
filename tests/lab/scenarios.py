# SPDX-License-Identifier: Apache-2.0
"""The fault matrix as data: what is done, and what must come of it, written down beforehand.

States are those of the node that was primary and of the one that was standby when the
play began. Seconds are for a machine that does other things too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from . import faults as do
from .cluster import CONFIG
from .faults import DAEMONS, Fault
from .network import Direction
from .paths import Cut, Path
from .stage import Side

PRIMARY, STANDBY = Side
UNKNOWN = "–"
"""The state of a node whose operator cannot be asked."""
UNNOTICED = 0.7
"""Seconds that clients may wait where nothing should happen: one lost packet is repeated after
0.2, and the client gives up a connection after 0.5."""
SILENCE = 8.0
"""A takeover after `detect`: 2 s, the evidence of the other paths, and the application's start."""
SWAPPED = 5.0
"""One in order."""


@dataclass(frozen=True, slots=True)
class Must:
    """What must come of a step."""

    primary: str
    standby: str
    within: float = 10.0
    """Until both nodes show this."""
    pause: float | None = None
    """How long clients may wait for an answer; None if they are not served in the end."""
    still: bool = False
    """Neither node may ever have told another state."""
    either: bool = False
    """It may be the other way round too."""
    says: str = ""
    """What `hactl why` tells on a node that waits: a regular expression."""

    def met_by(self, states: tuple[str, str]) -> bool:
        return self._met(states) or (self.either and self._met(states[::-1]))

    def _met(self, states: tuple[str, str]) -> bool:
        wanted = (self.primary, self.standby)
        return all(w in (s, UNKNOWN) for w, s in zip(wanted, states, strict=True))

    def __str__(self) -> str:
        told = f"{self.primary} / {self.standby}"
        told += " or the other way round" if self.either else ""
        told += " as before" if self.still else f" within {self.within:g} s"
        return told


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is done."""

    text: str
    act: Fault
    must: Must


@dataclass(frozen=True, slots=True)
class Scenario:
    """Faults one after the other, and then all is mended."""

    name: str
    group: str
    steps: tuple[Step, ...]
    end: str = "stays"
    """Whether the role `stays`, `moves`, or may end at `either` node, PRIM and SECOND."""
    changes: int = -1
    """How often the writer may change; -1: as `end` says."""
    whole: float = 60.0
    """Seconds from the mending to PRIM and SECOND."""
    prepare: Fault = do.NOTHING
    """Done before the watchers begin."""
    restore: Fault = do.NOTHING
    """Done after they have ended."""

    @property
    def most_changes(self) -> int:
        return self.changes if self.changes >= 0 else int(self.end != "stays")


NOTHING = Must("PRIM", "SECOND", pause=UNNOTICED, still=True)
NOT_REACHED = replace(NOTHING, pause=None)
LEFT_BEHIND = Must("ALONE", "WAIT", within=SILENCE, pause=SILENCE)
"""The primary goes on; the standby knows that it is outdated."""
DEAD_INTERFACE = Must("SECOND", "PRIM", within=15, pause=15)
"""No virtual IP is held where the cable is pulled: the role goes where it can be."""
TAKEOVER = Must("WAIT", "ALONE", within=8, pause=8.0)

# -- paths ----------------------------------------------------------------------------

SIDE_WORDS: dict[Direction, str] = {"both": "", "in": ", incoming only", "out": ", outgoing only"}
H, R, C, W = Path.HEARTBEAT, Path.REPLICATION, Path.CLIENTS, Path.WITNESS
MOVED = Must("PRIM", "SECOND", within=10, pause=SILENCE)
"""The stream goes on over the next link."""


def path_scenarios() -> Iterator[Scenario]:
    """Each path alone, in both directions and in one, and all of them together."""
    for direction, way in WAYS.items():
        for paths, must in (((H,), NOTHING), ((R,), LEFT_BEHIND), ((H, R), LEFT_BEHIND)):
            yield cut_scenario(PRIMARY, paths, must, direction, between(paths, way))
    for direction in WAYS:
        yield cut_scenario(PRIMARY, (Path.DIRECT,), MOVED, direction)
    for side in Side:
        served = NOT_REACHED if side is PRIMARY else NOTHING
        alone = replace(LEFT_BEHIND, pause=None) if side is PRIMARY else LEFT_BEHIND
        for direction in WAYS:
            pulled = direction == "both" and side is PRIMARY
            yield cut_scenario(side, (C,), DEAD_INTERFACE if pulled else served, direction)
            yield cut_scenario(side, (W,), NOTHING, direction)
        yield cut_scenario(side, (H, C), served)
        yield cut_scenario(side, (H, W), NOTHING)
        yield cut_scenario(side, (R, C), alone)
        yield cut_scenario(side, (R, W), LEFT_BEHIND)
        moves = side is PRIMARY
        isolated = TAKEOVER if moves else LEFT_BEHIND
        yield cut_scenario(side, (H, R, C), isolated)
        # The virtual IP of an isolated primary answers until it has stopped: its standby cannot
        # know that it does not go on alone.
        unseen = Must("WAIT", "WAIT", within=8, says="isolated|virtual IP") if moves else isolated
        yield cut_scenario(side, (H, R, W), unseen)
    dead = [do.cut(side, Cut(W)) for side in Side]
    both_isolated = Must("WAIT", "WAIT", within=8, says="isolated")
    yield Scenario(
        "witness-both",
        "paths",
        (Step("witness dead", do.all_of(*dead), NOTHING),),
    )
    yield Scenario(
        "heartbeat-replication-witness-both",
        "paths",
        (
            Step(
                "heartbeat and replication cut, witness dead",
                do.all_of(*dead, do.cut(PRIMARY, Cut(H), Cut(R))),
                both_isolated,
            ),
        ),
        end="either",
    )


WAYS: dict[Direction, str] = {
    "both": "",
    "out": ", primary → standby only",
    "in": ", standby → primary only",
}


def between(paths: tuple[Path, ...], way: str) -> str:
    return f"{' and '.join(paths)} cut{way}"


def cut_scenario(
    side: Side,
    paths: tuple[Path, ...],
    must: Must,
    direction: Direction = "both",
    text: str = "",
) -> Scenario:
    whose = "" if text else f"-{side}"
    name = "-".join(paths).replace(" ", "-") + whose
    name += "" if direction == "both" else f"-{direction}"
    own = [path for path in paths if path not in (H, R)]
    shared = [path for path in paths if path not in own]
    words = [f"{' and '.join(shared)} cut"] if shared else []
    words += [f"{side}: {path} cut{SIDE_WORDS[direction]}" for path in own]
    cuts = [Cut(path, direction) for path in paths]
    step = Step(text or "; ".join(words), do.cut(side, *cuts), must)
    end = {
        "ALONE": "moves",
        "PRIM": "moves",
        "WAIT": "stays" if must.primary == "ALONE" else "either",
    }
    return Scenario(name, "paths", (step,), end=end.get(must.standby, "stays"))


# -- the life of a cluster ------------------------------------------------------------


def life_scenarios() -> Iterator[Scenario]:
    yield Scenario(
        "first-start",
        "life",
        (
            Step(
                "first start: both nodes begin with nothing",
                do.forget,
                Must("WAIT", "WAIT", within=25, says="never held the data.*hactl promote"),
            ),
            Step(
                "hactl promote",
                do.run(PRIMARY, "hactl", "promote"),
                Must("PRIM", "SECOND", within=20, pause=60),
            ),
        ),
    )
    yield Scenario(
        "leave-primary",
        "life",
        (
            Step(
                "primary: hactl stop",
                do.run(PRIMARY, "hactl", "stop", undo=("hactl", "start")),
                Must("STOP", "ALONE", within=SWAPPED + 2, pause=SWAPPED),
            ),
        ),
        end="moves",
    )
    yield Scenario(
        "leave-standby",
        "life",
        (
            Step(
                "standby: hactl stop",
                do.run(STANDBY, "hactl", "stop", undo=("hactl", "start")),
                Must("ALONE", "STOP", within=5, pause=UNNOTICED),
            ),
        ),
    )
    yield Scenario(
        "shutdown-primary",
        "life",
        (
            Step(
                "primary: systemctl poweroff",
                do.shut_down(PRIMARY),
                Must("off", "ALONE", within=40, pause=SWAPPED + 1),
            ),
        ),
        end="moves",
    )
    yield Scenario(
        "shutdown-standby",
        "life",
        (
            Step(
                "standby: systemctl poweroff",
                do.shut_down(STANDBY),
                Must("ALONE", "off", within=40, pause=UNNOTICED),
            ),
        ),
    )
    yield Scenario(
        "reboot-primary",
        "life",
        (
            Step(
                "primary: reboot",
                do.reboot(PRIMARY),
                Must("SECOND", "PRIM", within=60, pause=SWAPPED + 1),
            ),
        ),
        end="moves",
    )
    yield Scenario(
        "reboot-standby",
        "life",
        (
            Step(
                "standby: reboot",
                do.reboot(STANDBY),
                Must("PRIM", "SECOND", within=60, pause=UNNOTICED),
            ),
        ),
    )
    yield Scenario(
        "reboot-both",
        "life",
        (
            Step(
                "both: reboot at once",
                do.reboot(PRIMARY, STANDBY),
                Must("PRIM", "SECOND", within=90, pause=90, either=True),
            ),
        ),
        end="either",
    )
    yield Scenario(
        "power-primary",
        "life",
        (
            Step(
                "primary: power cut",
                do.power_cut(PRIMARY),
                Must("off", "ALONE", within=SILENCE, pause=SILENCE),
            ),
        ),
        end="moves",
    )
    yield Scenario(
        "power-standby",
        "life",
        (
            Step(
                "standby: power cut",
                do.power_cut(STANDBY),
                Must("ALONE", "off", within=SILENCE, pause=SILENCE),
            ),
        ),
    )
    yield Scenario(
        "power-both",
        "life",
        (
            Step(
                "both: power cut at once, and back at once",
                do.all_of(do.power_cut(PRIMARY, STANDBY), do.boot(PRIMARY, STANDBY)),
                Must("PRIM", "SECOND", within=60, pause=60),
            ),
        ),
    )
    left_alone = Step(
        "standby: power cut",
        do.power_cut(STANDBY),
        Must("ALONE", "off", within=SILENCE, pause=SILENCE),
    )
    yield Scenario(
        "power-double-last-primary",
        "life",
        (
            left_alone,
            Step(
                "then the primary too, which gets power again first",
                do.all_of(do.power_cut(PRIMARY), do.boot(PRIMARY)),
                Must("ALONE", "off", within=30, pause=40),
            ),
        ),
    )
    yield Scenario(
        "power-double-stale",
        "life",
        (
            left_alone,
            Step(
                "then the primary too, and the standby alone gets power again",
                do.all_of(do.power_cut(PRIMARY), do.boot(STANDBY)),
                Must("off", "WAIT", within=20, says="start {primary}"),
            ),
        ),
    )
    yield Scenario(
        "manual",
        "life",
        (
            Step(
                'failover = "manual"; primary: power cut',
                do.power_cut(PRIMARY),
                Must("off", "SECOND", within=5),
            ),
            Step(
                "hactl promote",
                do.run(STANDBY, "hactl", "promote"),
                Must("off", "ALONE", within=5, pause=30),
            ),
        ),
        end="moves",
        prepare=do.reconfigure(do.with_cluster('failover = "manual"')),
        restore=do.reconfigure(CONFIG),
    )
    yield Scenario(
        "maintenance",
        "life",
        (
            Step(
                "hactl maintenance on; primary: power cut",
                do.all_of(do.run(STANDBY, "hactl", "maintenance", "on"), do.power_cut(PRIMARY)),
                Must("off", "SECOND", within=5),
            ),
            Step(
                "hactl maintenance off",
                do.run(STANDBY, "hactl", "maintenance", "off"),
                Must("off", "ALONE", within=5, pause=30),
            ),
        ),
        end="moves",
    )
    yield Scenario(
        "preferred",
        "life",
        (
            Step(
                "preferred primary: power cut",
                do.power_cut(PRIMARY),
                Must("off", "ALONE", within=SILENCE, pause=SILENCE),
            ),
            Step(
                "it gets power again",
                do.boot(PRIMARY),
                Must("PRIM", "SECOND", within=60, pause=SWAPPED),
            ),
        ),
        changes=2,
        prepare=do.prefer_the_primary,
        restore=do.reconfigure(CONFIG),
    )
    yield from disk_scenarios()
    yield from neighbour_scenarios()
    yield from application_scenarios()


def disk_scenarios() -> Iterator[Scenario]:
    yield Scenario(
        "disk-primary",
        "machine",
        (
            Step(
                "primary: its data disk is dead (EIO)",
                do.kill_disk(PRIMARY),
                Must("WAIT", "ALONE", within=60, pause=60),
            ),
        ),
        end="moves",
        whole=90,
    )
    yield Scenario(
        "disk-standby",
        "machine",
        (
            Step(
                "standby: its data disk is dead (EIO)",
                do.kill_disk(STANDBY),
                Must("ALONE", "WAIT", within=10, pause=SILENCE),
            ),
        ),
        whole=90,
    )


def neighbour_scenarios() -> Iterator[Scenario]:
    for side in Side:
        unnoticed = Must("PRIM", "SECOND", within=5, pause=UNNOTICED)
        for name, text, act in (
            ("dbus", "dbus-daemon restarted", do.run(side, "systemctl", "restart", "dbus")),
            ("dbus-kill", "dbus-daemon killed", do.signal("KILL", side, "dbus")),
            ("operator-kill", "operator killed", do.signal("KILL", side, "haoperator")),
            ("heartbeat-kill", "heartbeat killed", do.signal("KILL", side, "ha-heartbeat")),
        ):
            step = Step(f"{side}: {text}", act, unnoticed)
            yield Scenario(f"{name}-{side}", "machine", (step,))
        stop = ("systemctl", "stop", "docker.service", "docker.socket")
        dockerd = do.run(side, *stop, undo=("systemctl", "start", "docker"))
        # It is waited for, then started together with the application.
        must = NOTHING if side is STANDBY else Must("PRIM", "SECOND", within=5, pause=40)
        step = Step(f"{side}: dockerd stopped", dockerd, must)
        yield Scenario(f"dockerd-{side}", "machine", (step,))
    yield Scenario(
        "clock",
        "machine",
        tuple(
            Step(
                f"{side}: clock of operator and heartbeat set by {way}",
                do.set_clock(side, way),
                NOTHING,
            )
            for side, way in ((PRIMARY, "+5h"), (STANDBY, "-5h"), (PRIMARY, "-5h"))
        ),
        prepare=do.give_own_clocks,
        restore=do.take_own_clocks,
    )
    yield Scenario(
        "replicator-kill-primary",
        "machine",
        (
            Step(
                "primary: replicator killed",
                do.signal("KILL", PRIMARY, "ha-replicator"),
                Must("PRIM", "SECOND", within=10, pause=2),
            ),
        ),
    )
    yield Scenario(
        "replicator-kill-standby",
        "machine",
        (
            Step(
                "standby: replicator killed",
                do.signal("KILL", STANDBY, "ha-replicator"),
                Must("PRIM", "SECOND", within=10, pause=2),
            ),
        ),
    )
    for side in Side:
        unseen = ("–", "SECOND") if side is PRIMARY else ("PRIM", "–")
        for daemon, must in (
            ("haoperator", Must(*unseen, pause=UNNOTICED, still=True)),
            ("ha-heartbeat", NOTHING),
            ("ha-replicator", Must("PRIM", "SECOND", within=35, pause=35)),
        ):
            text = f"{side}: {daemon} stopped (SIGSTOP)"
            yield Scenario(
                f"stopped-{daemon}-{side}",
                "machine",
                (Step(text, do.signal("STOP", side, daemon), must),),
                end="either" if daemon == "ha-replicator" else "stays",
            )
    yield Scenario(
        "stopped-all-primary",
        "machine",
        (
            Step(
                "primary: all three daemons stopped at once (SIGSTOP)",
                do.signal("STOP", PRIMARY, *DAEMONS),
                Must("PRIM", "SECOND", within=45, pause=45, either=True),
            ),
        ),
        end="either",
    )


def application_scenarios() -> Iterator[Scenario]:
    yield Scenario(
        "application-one",
        "machine",
        (
            Step(
                "primary: the application fails again and again",
                do.fail_application(PRIMARY),
                Must("SECOND", "PRIM", within=20, pause=20),
            ),
        ),
        end="moves",
        prepare=do.forgive,
    )
    yield Scenario(
        "application-both",
        "machine",
        (
            Step(
                "both: the application fails again and again",
                do.fail_application(PRIMARY, STANDBY),
                Must("SECOND", "PRIM", within=20),
            ),
        ),
        end="moves",
        prepare=do.forgive,
    )


def scenarios() -> list[Scenario]:
    found = [*path_scenarios(), *life_scenarios()]
    assert len({scenario.name for scenario in found}) == len(found)
    return found
