# SPDX-License-Identifier: Apache-2.0
"""Where Docker keeps a named volume on this node.

dockerd is not asked: the mount of a volume is made at boot, before dockerd runs. So this
holds for volumes of the driver `local` without options, and for a data-root that stands
in daemon.json and not on dockerd's command line.
"""

from __future__ import annotations

import json
from pathlib import Path

DAEMON_JSON = Path("/etc/docker/daemon.json")
_DATA_ROOT = "/var/lib/docker"


def directory_of(volume: str, daemon_json: Path | None = None) -> str:
    """The directory with the volume's content, an absolute path without `.` and `..`."""
    return f"{_data_root(daemon_json or DAEMON_JSON)}/volumes/{volume}/_data"


def _data_root(daemon_json: Path) -> str:
    try:
        settings = json.loads(daemon_json.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return _DATA_ROOT  # dockerd does not start on a file that it cannot read
    root = settings.get("data-root") if isinstance(settings, dict) else None
    if not isinstance(root, str) or not root.startswith("/"):
        return _DATA_ROOT
    parts = [part for part in root.split("/") if part not in {"", "."}]
    return "/" + "/".join(parts) if parts and ".." not in parts else _DATA_ROOT
