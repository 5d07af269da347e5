# SPDX-License-Identifier: Apache-2.0
"""The verbs of `hactl`. Each is one function; exit status 0 is success, 1 a refusal."""

from __future__ import annotations

from haoperator.lean.imports import leave_out_tls_and_glib

leave_out_tls_and_glib()

import argparse  # noqa: E402
import asyncio  # noqa: E402
import json  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from dbus_next.aio import MessageBus  # noqa: E402

from haoperator import secret  # noqa: E402
from haoperator.cli import client, show  # noqa: E402
from haoperator.cli.client import Failed, OperatorAbsent  # noqa: E402
from haoperator.cli.missing import missing  # noqa: E402
from haoperator.cli.splitbrain import add_verbs as add_splitbrain  # noqa: E402
from haoperator.cli.verify import verify  # noqa: E402
from haoperator.lean.configuration import CONFIGURATION  # noqa: E402
from tomlconfig import ConfigError, load, templates  # noqa: E402

WATCH_SECONDS = 1.0


def main() -> int:
    """Carry out one verb. Returns the exit status."""
    args = _parser().parse_args()
    try:
        return int(args.run(args))
    except (Failed, ConfigError, secret.SecretError) as err:
        print(f"hactl: {err}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hactl", description="Drive the high availability cluster of this node and its peer."
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    status = verbs.add_parser("status", help="show both nodes and what runs on them")
    status.add_argument("--json", action="store_true", help="print one JSON document")
    status.add_argument("--watch", action="store_true", help="repeat every second")
    status.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        help="print nothing; the exit status is STOP 0, WAIT 1, ALONE 2, PRIM 3, SECOND 4, other 5",
    )
    status.set_defaults(run=_status)

    why = verbs.add_parser("why", help="show the evidence behind the present state")
    why.set_defaults(run=lambda args: asyncio.run(_why()))
    swap = verbs.add_parser("swap", help="exchange the roles of the two nodes")
    swap.set_defaults(run=lambda args: _command("Swap"))
    start = verbs.add_parser("start", help="join the cluster")
    start.set_defaults(run=lambda args: asyncio.run(_start()))
    stop = verbs.add_parser("stop", help="leave the cluster in order; the peer takes over")
    stop.set_defaults(run=lambda args: _command("Stop"))
    promote = verbs.add_parser("promote", help="make this node primary: the very first start")
    promote.add_argument(
        "--force",
        action="store_true",
        help="even if the data here may be stale; what the peer wrote alone may be lost",
    )
    promote.set_defaults(run=_promote)

    maintenance = verbs.add_parser(
        "maintenance", help="on: neither node changes its role by itself, until off"
    )
    maintenance.add_argument("switch", choices=("on", "off"))
    maintenance.set_defaults(run=lambda args: asyncio.run(_maintenance(args.switch)))

    compare = verbs.add_parser("verify", help="compare both copies of the data by hash")
    compare.add_argument(
        "--repair", action="store_true", help="send what differs to the standby again"
    )
    compare.set_defaults(run=lambda args: verify(args.repair))
    add_splitbrain(verbs)

    check = verbs.add_parser("check-config", help="read a configuration and say what is wrong")
    check.add_argument("file", nargs="?", type=Path, default=Path(CONFIGURATION))
    check.set_defaults(run=_check_config)
    template = verbs.add_parser("template", help="complete configurations to begin with")
    template.add_argument("action", choices=("list", "show"))
    template.add_argument("name", nargs="?", help="the one to show")
    template.set_defaults(run=_template)
    keygen = verbs.add_parser("keygen", help="make the secret that both nodes share")
    keygen.add_argument("file", nargs="?", type=Path, default=secret.PATH)
    keygen.set_defaults(run=_keygen)
    return parser


def _status(args: argparse.Namespace) -> int:
    return asyncio.run(_show_status(args.json, args.quiet, args.watch))


async def _show_status(as_json: bool, quiet: bool, watch: bool) -> int:
    while True:
        report = await _report()
        if quiet:
            return show.exit_code(report)
        if watch:
            print("\x1b[H\x1b[2J", end="")
        print(json.dumps(report) if as_json else show.text(report, sys.stdout.isatty()), flush=True)
        if not watch:
            return 0
        await asyncio.sleep(WATCH_SECONDS)


async def _report() -> dict[str, Any]:
    return await _report_on(await client.connect())


async def _report_on(bus: MessageBus) -> dict[str, Any]:
    try:
        return await client.fetch_report(bus)
    except OperatorAbsent:
        return show.without_operator(socket.gethostname(), await client.takes_part(bus))


async def _why() -> int:
    bus = await client.connect()
    print(show.why(await _report_on(bus), await client.fetch_evidence(bus)))
    return 0


def _command(verb: str, signature: str = "", *body: object) -> int:
    async def run() -> None:
        await client.command(await client.connect(), verb, signature, *body)

    asyncio.run(run())
    print(f"{verb.lower()}: accepted; 'hactl status' shows how far it is")
    return 0


def _promote(args: argparse.Namespace) -> int:
    if args.force:
        for sentence in missing(asyncio.run(_report())):
            print(f"hactl: {sentence}", file=sys.stderr)
    return _command("Promote", "b", args.force)


async def _maintenance(switch: str) -> int:
    await client.command(await client.connect(), "SetMaintenance", "b", switch == "on")
    print(f"maintenance is {switch}, on both nodes as soon as they hear each other")
    return 0


async def _start() -> int:
    await client.start_cluster(await client.connect())
    print("start: accepted; 'hactl status' shows how far it is")
    return 0


def _check_config(args: argparse.Namespace) -> int:
    config = load(args.file)
    print(
        f"{args.file}: cluster {config.cluster.name}, nodes {' and '.join(config.nodes)}, "
        f"{len(config.replicate)} replicated, {len(config.vips)} virtual IP, "
        f"{len(config.apps)} applications, {len(config.checkers)} checkers: no errors"
    )
    return 0


def _template(args: argparse.Namespace) -> int:
    summaries = templates.summaries()
    if args.action == "list":
        for name, summary in summaries.items():
            print(f"{name:<12} {summary}")
        return 0
    if args.name not in summaries:
        raise Failed(f"name one of the templates: {', '.join(summaries)}")
    print(templates.text(args.name), end="")
    return 0


def _keygen(args: argparse.Namespace) -> int:
    secret.generate(args.file)
    print(f"{args.file} made; copy it to the other node, mode 0600, owner root")
    return 0


if __name__ == "__main__":
    sys.exit(main())
