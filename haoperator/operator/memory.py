# SPDX-License-Identifier: Apache-2.0
"""What the operator remembers: over a reboot, whether an administrator said hands off; over its
own restart, that this node takes part already."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path

from haoperator.core.status import Maintenance
from haoperator.lean import durable

log = logging.getLogger(__name__)

PATH = Path("/var/lib/haoperator/maintenance.json")
JOINED = Path("/run/haoperator/joined")


def recall(path: Path = PATH) -> Maintenance:
    """What was stored last. What cannot be read is taken for "on", because then nothing moves."""
    try:
        return Maintenance.from_raw(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Maintenance()
    except (OSError, ValueError) as err:
        log.error("%s: %s; maintenance is on: 'hactl maintenance off' puts it right", path, err)
        return Maintenance(on=True)


def remember(maintenance: Maintenance, path: Path = PATH) -> None:
    """Store it durably. Raises OSError."""
    durable.replace(path, json.dumps(asdict(maintenance)).encode() + b"\n")


def joins(path: Path = JOINED) -> bool:
    """Whether this node joins the cluster now, and it is not only its operator that starts anew."""
    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError as err:
        log.warning("%s: %s", path, err)
    return True


def leaves(path: Path = JOINED) -> None:
    """The next start is a joining again."""
    path.unlink(missing_ok=True)
