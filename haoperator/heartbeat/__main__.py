# SPDX-License-Identifier: Apache-2.0
"""`ha-heartbeat`: start, and stay until systemd says otherwise."""

from __future__ import annotations

from haoperator.lean.imports import leave_out_tls_and_glib

leave_out_tls_and_glib()

import asyncio  # noqa: E402
import contextlib  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402

from haoperator import secret  # noqa: E402
from haoperator.heartbeat import memory  # noqa: E402
from haoperator.heartbeat.daemon import Daemon  # noqa: E402
from haoperator.lean.configuration import CONFIGURATION, EXIT_MISCONFIGURED  # noqa: E402
from haoperator.systemd import notify  # noqa: E402
from haoperator.systemd.bus import NameTaken  # noqa: E402
from tomlconfig import Config, ConfigError, load  # noqa: E402

log = logging.getLogger("haoperator.heartbeat")


async def serve(config: Config, node: str, key: bytes) -> None:
    """Run the daemon until SIGTERM. Raises what ends it otherwise."""
    running = asyncio.create_task(Daemon(config, node, key).run())
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, running.cancel)
    loop.add_signal_handler(signal.SIGINT, running.cancel)
    memory.lock()
    notify.ready(f"beating every {config.timing.heartbeat * 1000:.0f} ms")
    with contextlib.suppress(asyncio.CancelledError):
        await running


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    node = os.uname().nodename
    try:
        config = load(CONFIGURATION)
        key = secret.derive(secret.read(), "heartbeat")
        config.peer_of(node)
    except (ConfigError, secret.SecretError, ValueError) as err:
        log.error("%s", err)
        return EXIT_MISCONFIGURED
    code = 0
    try:
        asyncio.run(serve(config, node, key))
    except* NameTaken as group:
        log.error("%s", group.exceptions[0])
        code = 1
    return code


if __name__ == "__main__":
    sys.exit(main())
