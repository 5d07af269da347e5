# SPDX-License-Identifier: Apache-2.0
"""`hactl verify`: begins a comparison of both copies, follows it, and tells what came of it."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from haoperator.cli import client
from haoperator.cli.client import Failed
from haoperator.cli.comparison import INTERRUPTED, NOT_COMPARED, exit_code, result, summary

POLL_SECONDS = 0.5
STEP = 0.1
"""Of the progress, between two lines where there is no terminal."""


def verify(repair: bool) -> int:
    """The verb. Returns the exit status."""
    try:
        told = asyncio.run(_follow(repair))
    except Failed as err:
        print(f"hactl: {err}", file=sys.stderr)
        return NOT_COMPARED
    except KeyboardInterrupt:
        print("\nthe comparison goes on; 'hactl status' shows how far it is", file=sys.stderr)
        return INTERRUPTED
    for line in result(told):
        print(line)
    return exit_code(told)


async def _follow(repair: bool) -> dict[str, Any]:
    bus = await client.connect()
    await client.command(bus, "Repair" if repair else "Verify")
    progress = Progress(sys.stdout.isatty())
    try:
        while True:
            told: dict[str, Any] = (await client.fetch_report(bus)).get("verification", {})
            if told.get("state") not in ("running", "repairing"):
                return told
            progress.show(told)
            await asyncio.sleep(POLL_SECONDS)
    finally:
        progress.close()


class Progress:
    """One line that changes on a terminal, else a line now and then."""

    def __init__(self, terminal: bool) -> None:
        self._terminal = terminal
        self._shown = -1.0

    def show(self, told: dict[str, Any]) -> None:
        if self._terminal:
            print(f"\r{summary(told)}\x1b[K", end="", flush=True)
        elif told["progress"] >= self._shown + STEP:
            print(summary(told), flush=True)
        else:
            return
        self._shown = told["progress"]

    def close(self) -> None:
        if self._terminal and self._shown >= 0:
            print("\r\x1b[K", end="", flush=True)
