# SPDX-License-Identifier: Apache-2.0
"""Whether dockerd runs, found out without waking it.

Where docker.socket listens for it, connecting starts a dockerd that somebody has
stopped. An application waits for it instead, and systemd starts it when the unit of the
application is started anew (`Wants=docker.service`).
"""

from __future__ import annotations

from haoperator.lean import systemd

UNIT = "docker.service"
LOOK_SECONDS = 1.0
"""Between two looks at a dockerd that is away."""


def runs() -> bool:
    """Also true where dockerd is no unit of systemd: only asking it can tell then."""
    told = systemd.show(UNIT, "LoadState", "ActiveState")
    return told[:1] != ["loaded"] or told[1] in ("active", "reloading")
