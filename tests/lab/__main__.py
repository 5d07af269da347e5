# SPDX-License-Identifier: Apache-2.0
"""The lab by hand: `python3 -m tests.lab up`, `shell a`, `power-cut a`, `boot a`, `down`, …"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

from .chaos import soak
from .command import LabError, clean_environment
from .lab import Lab
from .matrix import matrix
from .power_soak import soak_power
from .standing import Standing
from .takeover_soak import soak_takeovers


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python3 -m tests.lab", description=__doc__)
    verbs = p.add_subparsers(dest="verb", required=True, metavar="VERB")
    up = verbs.add_parser("up", help="two new servers; removes a former lab first")
    up.add_argument("--cluster", action="store_true", help="and haoperator on them, PRIM/SECOND")
    verbs.add_parser("down", help="remove the lab and what it left on the machine")
    verbs.add_parser("status", help="what is there, what has power, what is cut")
    for verb, text in (
        ("shell", "a shell in a node"),
        ("power-cut", "take the power of a node away"),
        ("boot", "give a node power"),
        ("shutdown", "shut a node down in order"),
    ):
        verbs.add_parser(verb, help=text).add_argument("node", help="a or b")
    for verb, text in (
        ("exec", "run a command in a node, or in the network of the client"),
        ("journal", "the journal of a node; options go to journalctl"),
        ("install", "install a package in a node with apt"),
    ):
        v = verbs.add_parser(verb, help=text)
        v.add_argument("node", help="a or b; for exec also client")
        v.add_argument("words", nargs=argparse.REMAINDER)
    cut = verbs.add_parser("cut", help="cut the cables of a node, or of client or witness")
    cut.add_argument("node", help="a, b, client or witness")
    cut.add_argument("--link", choices=("lan", "direct", "repl"), help="this one only")
    cut.add_argument("--direction", choices=("in", "out", "both"), default="both")
    verbs.add_parser("heal", help="mend all that was cut")
    soaking = verbs.add_parser("soak", help="faults at random, on a lab of its own making")
    soaking.add_argument("seconds", nargs="?", type=float, default=3600.0)
    soaking.add_argument("--seed", default=os.environ.get("SEED", f"{time.time():.0f}"))
    soaking.add_argument("--first", type=int, default=1, help="the number of the first round")
    taking = verbs.add_parser("takeovers", help="takeovers in a row, on a lab of its own making")
    taking.add_argument("rounds", nargs="?", type=int, default=int(os.environ.get("N", "100")))
    cutting = verbs.add_parser("power", help="power cuts in a row, on a lab of its own making")
    cutting.add_argument("rounds", nargs="?", type=int, default=int(os.environ.get("N", "200")))
    cutting.add_argument("--seed", default=os.environ.get("SEED", f"{time.time():.0f}"))
    cutting.add_argument("--first", type=int, default=1, help="the number of the first cut")
    playing = verbs.add_parser("matrix", help="every fault, on a lab of its own making")
    playing.add_argument("words", nargs="*", help="only those with one of these in their names")
    return p


def act(lab: Lab, args: argparse.Namespace) -> int:
    match args.verb:
        case "up":
            begin = time.monotonic()
            if args.cluster:
                Standing(lab).new()
            else:
                lab.up()
            print(f"two nodes are up after {time.monotonic() - begin:.1f} s")
        case "down":
            lab.down()
        case "status":
            print(json.dumps(lab.status(), indent=2))
        case "shell":
            lab.node(args.node).shell()
        case "power-cut":
            lab.node(args.node).power_cut()
        case "boot":
            lab.node(args.node).boot()
        case "shutdown":
            lab.node(args.node).shutdown()
        case "exec":
            words = args.words[1:] if args.words[:1] == ["--"] else args.words
            where = lab.in_client() if args.node == "client" else lab.node(args.node).entering()
            os.execvpe(where[0], [*where, *words], clean_environment())
        case "journal":
            print(lab.node(args.node).journal(*args.words), end="")
        case "install":
            print(lab.node(args.node).install(*args.words), end="")
        case "cut":
            part = args.node if args.node in ("client", "witness") else lab.node(args.node).name
            link = "direct" if args.link == "repl" else args.link
            lab.network.cut(part, link, args.direction)
        case "soak":
            return soak(args.seconds, args.seed, args.first)
        case "takeovers":
            return soak_takeovers(args.rounds)
        case "power":
            return soak_power(args.rounds, args.seed, args.first)
        case "matrix":
            return matrix(args.words)
        case "heal":
            lab.network.heal()
    return 0


def main() -> int:
    try:
        return act(Lab(), parser().parse_args())
    except LabError as err:
        print(f"error: {err}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
