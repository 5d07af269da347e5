# SPDX-License-Identifier: Apache-2.0
"""`ha-replicator`: start, and stay until systemd says otherwise."""

from __future__ import annotations

from haoperator.lean.imports import leave_out_tls_and_glib

leave_out_tls_and_glib()

import asyncio  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
from typing import NoReturn  # noqa: E402

from haoperator import secret  # noqa: E402
from haoperator.lean.configuration import CONFIGURATION, EXIT_MISCONFIGURED  # noqa: E402
from haoperator.replica.limits import raise_limits  # noqa: E402
from haoperator.replica.service import Service, settings_of  # noqa: E402
from haoperator.replica.settings import Settings  # noqa: E402
from haoperator.systemd.bus import NameTaken  # noqa: E402
from tomlconfig import ConfigError, load  # noqa: E402

log = logging.getLogger("haoperator.replica")


async def serve(settings: Settings) -> None:
    """Run the service until SIGTERM. Raises what ends it otherwise."""
    service = Service(settings)
    for ending in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(ending, service.leave)
    await service.run()


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        config = load(CONFIGURATION)
        key = secret.derive(secret.read(), "replication")
        settings = settings_of(config, os.uname().nodename, key)
    except (ConfigError, secret.SecretError, ValueError) as err:
        log.error("%s", err)
        return EXIT_MISCONFIGURED
    run(settings)


def run(settings: Settings) -> NoReturn:
    """Serve, and end the process: threads wait in the kernel, nothing can be waited for."""
    raise_limits()
    try:
        asyncio.run(serve(settings))
    except* NameTaken as group:
        log.error("%s", group.exceptions[0])
    except* Exception:
        log.exception("the replicator cannot go on")
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
