# SPDX-License-Identifier: Apache-2.0
"""`hactl splitbrain`: ends a split brain, and gives access to what the losing node had written."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from haoperator.cli import client
from haoperator.cli.client import Failed
from haoperator.cli.divergence import differences
from haoperator.cli.kept import Kept, branch, find, kept_here
from haoperator.cli.restoring import STANDARD_OUTPUT, restore
from haoperator.lean.configuration import CONFIGURATION
from haoperator.replica.branch import Branch
from haoperator.replica.manifest import beside
from tomlconfig import Config, load


def add_verbs(verbs: Any) -> None:
    """The parser of `hactl splitbrain`, to those of the other verbs."""
    parser = verbs.add_parser(
        "splitbrain", help="end a split brain; see what the loser had written"
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    give_way = actions.add_parser(
        "yield", help="the data of THIS node loses; what differs is set aside"
    )
    give_way.add_argument("--yes", action="store_true", help="do not ask")
    give_way.set_defaults(run=lambda args: _yield(args.yes))

    listing = actions.add_parser("list", help="the branches that are set aside on this node")
    listing.set_defaults(run=lambda args: _print(listed(load(Path(CONFIGURATION)))))

    diff = actions.add_parser("diff", help="what differs from the data as it is now")
    diff.add_argument("id", metavar="ID")
    diff.add_argument("path", metavar="PATH", nargs="?")
    diff.set_defaults(run=lambda args: _print(differing(_config(), args.id, args.path)))

    back = actions.add_parser("restore", help="bring something back, beside what is there now")
    back.add_argument("id", metavar="ID")
    back.add_argument("path", metavar="PATH")
    back.add_argument("--to", metavar="PATH", help="where to; '-' is standard output")
    back.set_defaults(run=lambda args: _restore(_config(), args.id, args.path, args.to))

    drop = actions.add_parser("drop", help="remove a branch that is set aside, for good")
    drop.add_argument("id", metavar="ID")
    drop.add_argument("--yes", action="store_true", help="do not ask")
    drop.set_defaults(run=lambda args: dropped(_config(), args.id, args.yes))


def _config() -> Config:
    return load(Path(CONFIGURATION))


def _print(lines: Iterator[str]) -> int:
    for line in lines:
        print(line)
    return 0


def _yield(yes: bool) -> int:
    report = asyncio.run(_report())
    for line in foretold(report):
        print(line)
    if not yes:
        confirm(report["node"], f"Type the name of this node, {report['node']}, to let it lose: ")
    asyncio.run(_command())
    print("yield: accepted; 'hactl status' shows how far it is")
    return 0


async def _report() -> dict[str, Any]:
    return await client.fetch_report(await client.connect())


async def _command() -> None:
    await client.command(await client.connect(), "Yield")


def foretold(report: dict[str, Any]) -> Iterator[str]:
    """What a yield on this node would do. Raises Failed where there is nothing to yield."""
    divided, node, peer = report.get("splitbrain"), report["node"], report["peer"]["name"]
    if divided is None:
        if not report["peer"]["reachable"]:
            raise Failed(f"{peer} is not heard: only when both nodes see each other can one yield")
        raise Failed(f"there is no split brain: {node} and {peer} share one history")
    for name, side in divided["sides"]:
        yield f"{name:<16} {side}"
    yield f"The data of {node} loses, that of {peer} is served from now on, and copied here."
    if report["role"] == "primary":
        yield f"{node} is primary: its applications stop, and start on {peer}."
    for replica in report["replication"]:
        place = os.path.normpath(os.path.join(replica["path"], beside(replica["name"])))
        yield f"What differs in {replica['path']} is set aside first: {place}"


def confirm(word: str, question: str) -> None:
    """Raises Failed unless somebody at a terminal types the word."""
    if not sys.stdin.isatty():
        raise Failed("there is nobody to ask: say --yes")
    print(question, end="", flush=True)
    if sys.stdin.readline().strip() != word:
        raise Failed("nothing was done")


def listed(config: Config) -> Iterator[str]:
    """One line for each directory of each branch. Raises Failed."""
    here = kept_here(config)
    if not here:
        yield "nothing is set aside on this node"
    for kept in here:
        yield (
            f"{kept.id}  {kept.when}  {kept.name:<12} {_extent(kept)}, "
            f"written on {kept.about.node}, lost to {kept.about.peer}"
        )


def _extent(kept: Kept) -> str:
    if not kept.compared:
        return "the resynchronisation is under way"
    count = sum(1 for _ in kept)
    return f"{count} {'name differs' if count == 1 else 'names differ'}, {kept.size / 1e6:.1f} MB"


def differing(config: Config, id_: str, path: str | None) -> Iterator[str]:
    """What differs, of all or below a path. Raises Failed."""
    if path is not None:
        kept, below = find(config, id_, path)
        yield from differences(kept, below)
        return
    for kept in branch(config, id_):
        yield from differences(kept)


def _restore(config: Config, id_: str, path: str, to: str | None) -> int:
    kept, below = find(config, id_, path)
    place = restore(kept, below, to)
    if to != STANDARD_OUTPUT:
        print(f"restored: {place}")
    return 0


def dropped(config: Config, id_: str, yes: bool) -> int:
    """Remove what was set aside under an id. Raises Failed."""
    found = branch(config, id_)
    for kept in found:
        if not kept.compared:
            raise Failed(f"{id_}: the resynchronisation is under way, see 'hactl status'")
        print(f"{kept.name}: {_extent(kept)}")
    if not yes:
        confirm("yes", f"Remove {id_} for good? Type yes: ")
    for kept in found:
        top = os.open(kept.live, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with contextlib.closing(Branch(kept.name, top, kept.id)) as dropping:
                dropping.drop()
        except OSError as err:
            raise Failed(f"{kept.place}: {err.strerror}") from err
        finally:
            os.close(top)
    print(f"{id_} is removed")
    return 0
