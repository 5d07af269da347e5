# SPDX-License-Identifier: Apache-2.0
"""What an application may write without the standby getting it. Pure.

The data of a container is lost by a takeover if it lies in a volume or a directory that
is not replicated. This may be wanted (a cache), so it is said and not refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

_OF_THE_NODE = tuple(map(PurePath, ("/dev", "/proc", "/run", "/sys", "/var/run", "/etc/localtime")))


def unreplicated(mounts: Iterable[Mapping[str, Any]], replicated: Iterable[PurePath]) -> list[str]:
    """Of the `Mounts` in `docker inspect`: what can be written and is in none of `replicated`."""
    safe = [*replicated, *_OF_THE_NODE]
    found = []
    for mount in mounts:
        source = PurePath(str(mount.get("Source") or ""))
        kind, writable = mount.get("Type"), mount.get("RW", True)
        if kind not in ("bind", "volume") or not writable:
            continue
        if any(source == path or path in source.parents for path in safe):
            continue
        name = str(mount.get("Name") or "")
        what = f"volume {name}" if kind == "volume" else f"directory {source}"
        if kind == "volume" and len(name) == 64 and name.isalnum():
            what = "a volume without a name"
        found.append(f"{what} at {mount.get('Destination')}")
    return found
