# SPDX-License-Identifier: Apache-2.0
"""Which faults meet a pair, when, and for how long: all of it follows from a seed.

A round is a handful of faults that overlap. No combination here is documented as losing
data: nobody is forced to serve, no disk is lost, and the witness and the virtual IP are
reached by the same cable, so that a node which reaches neither peer nor address is isolated.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

from .faults import DAEMONS
from .network import Direction
from .paths import Path
from .place import NODES


class Kind(StrEnum):
    CUT = "cut"
    POWER = "power cut"
    REBOOT = "reboot"
    LEAVE = "hactl stop"
    SWAP = "hactl swap"
    KILL = "SIGKILL"
    STOP = "SIGSTOP"
    RESTART = "restart"
    DOCKER = "dockerd stopped"
    APPLICATION = "application killed"


WEIGHTS = {
    Kind.CUT: 8,
    Kind.POWER: 5,
    Kind.REBOOT: 2,
    Kind.LEAVE: 2,
    Kind.SWAP: 3,
    Kind.KILL: 3,
    Kind.STOP: 4,
    Kind.RESTART: 2,
    Kind.DOCKER: 1,
    Kind.APPLICATION: 1,
}
UNITS = (*DAEMONS, "dbus")
PATHS: tuple[tuple[Path, ...], ...] = (
    *((path,) for path in Path),
    (Path.HEARTBEAT, Path.REPLICATION),
    (Path.HEARTBEAT, Path.CLIENTS),
    (Path.REPLICATION, Path.CLIENTS),
    (Path.HEARTBEAT, Path.REPLICATION, Path.CLIENTS),
    (Path.HEARTBEAT, Path.REPLICATION, Path.WITNESS),
)
DIRECTIONS: tuple[Direction, ...] = ("both", "both", "in", "out")


@dataclass(frozen=True, slots=True)
class Disturbance:
    """One fault. Seconds from the beginning of its round."""

    kind: Kind
    node: str
    begin: float
    end: float
    paths: tuple[Path, ...] = ()
    direction: Direction = "both"
    units: tuple[str, ...] = ()

    def __str__(self) -> str:
        told = [self.node, str(self.kind), " and ".join((*self.paths, *self.units))]
        told += [self.direction] if self.paths and self.direction != "both" else []
        return " ".join(word for word in told if word)


@dataclass(frozen=True, slots=True)
class Round:
    """Faults that overlap, in order of their beginning."""

    number: int
    faults: tuple[Disturbance, ...]
    rests: bool
    """Whether the pair may become whole before the next round."""

    @classmethod
    def of(cls, seed: str, number: int) -> Round:
        chance = random.Random(f"{seed} {number}")
        count = chance.choice((1, 1, 2, 2, 3))
        faults = sorted((disturbance(chance) for _ in range(count)), key=lambda d: d.begin)
        return cls(number, tuple(faults), chance.random() < 0.7)

    def __str__(self) -> str:
        return "; ".join(f"{d.begin:.1f}–{d.end:.1f} s {d}" for d in self.faults)


def disturbance(chance: random.Random) -> Disturbance:
    kind = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
    begin = chance.uniform(0, 5)
    lasts = chance.choice((chance.uniform(0.2, 2), chance.uniform(2, 6), chance.uniform(6, 20)))
    units: tuple[str, ...] = ()
    if kind in (Kind.KILL, Kind.RESTART):
        units = (chance.choice(UNITS),)
    if kind is Kind.STOP:
        units = chance.choice((DAEMONS, *((unit,) for unit in DAEMONS)))
    return Disturbance(
        kind=kind,
        node=chance.choice(NODES),
        begin=begin,
        end=begin + lasts,
        paths=chance.choice(PATHS) if kind is Kind.CUT else (),
        direction=chance.choice(DIRECTIONS),
        units=units,
    )
