# SPDX-License-Identifier: Apache-2.0
"""ha-replicator as systemd runs it, but with settings from a file of the test."""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

from haoperator.replica import __main__ as program
from tests.replica.node_process import settings_from


def main() -> None:
    if "LISTEN_FDS" in os.environ:
        os.environ["LISTEN_PID"] = str(os.getpid())  # the parent cannot know it
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    said = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    program.run(settings_from(said))


if __name__ == "__main__":
    main()
