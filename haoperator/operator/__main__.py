# SPDX-License-Identifier: Apache-2.0
"""`haoperator.service`."""

from __future__ import annotations

from haoperator.lean.imports import leave_out_tls_and_glib

leave_out_tls_and_glib()

import asyncio  # noqa: E402
import logging  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402

from haoperator.lean.configuration import CONFIGURATION, EXIT_MISCONFIGURED  # noqa: E402
from haoperator.operator.operator import Operator  # noqa: E402
from haoperator.systemd.bus import NameTaken  # noqa: E402
from tomlconfig import ConfigError, load  # noqa: E402


def main() -> int:
    """Run until SIGTERM. Returns the exit status."""
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    try:
        operator = Operator(load(CONFIGURATION), socket.gethostname())
    except (ConfigError, ValueError) as err:
        print(err, file=sys.stderr)
        return EXIT_MISCONFIGURED
    status = 0
    try:
        asyncio.run(_run(operator))
    except* NameTaken:
        print("another operator runs already: it owns the bus name", file=sys.stderr)
        status = 1
    return status


async def _run(operator: Operator) -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        loop.add_signal_handler(signal.SIGTERM, lambda: group.create_task(operator.leave()))
        await operator.run()


if __name__ == "__main__":
    sys.exit(main())
