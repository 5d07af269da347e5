# SPDX-License-Identifier: Apache-2.0
"""What the units of the cluster are called, and systemd's rules for names (systemd.unit(5)).

The instance of a template is the name from the configuration as it stands there:
such names consist of letters, digits, `-` and `_`, all of which a unit name may
contain, and the templates use `%i`, which is handed on as it is. So the unit of
`[app.my-web]` is `ha-app@my-web.service`, as one would type it. A path, on the
other hand, is escaped.
"""

from __future__ import annotations

import string
from collections.abc import Collection
from pathlib import PurePath

CLUSTER = "ha-cluster.target"
PRIMARY = "ha-primary.target"
SECONDARY = "ha-secondary.target"
PROMOTE = "ha-promote.service"
OPERATOR = "haoperator.service"
HEARTBEAT = "ha-heartbeat.service"
REPLICATOR = "ha-replicator.service"
GUARD = "ha-guard.service"
CONFIG_ERROR = "ha-config-error.service"
DAEMONS = (HEARTBEAT, REPLICATOR, OPERATOR)

UNIT_DIRECTORY = "/lib/systemd/system"
_UNIT_PATHS = "/org/freedesktop/systemd1/unit/"

_PLAIN = frozenset((string.ascii_letters + string.digits + ":_.").encode())
_ALPHANUMERIC = frozenset((string.ascii_letters + string.digits).encode())


def vip(name: str) -> str:
    return f"ha-vip@{name}.service"


def app(name: str) -> str:
    return f"ha-app@{name}.service"


def checker(name: str) -> str:
    return f"ha-checker@{name}.service"


def template_of(unit: str) -> str:
    """`ha-app@web.service` → `ha-app@.service`; a unit that is no instance is its own."""
    prefix, at, rest = unit.partition("@")
    return f"{prefix}@.{rest.rpartition('.')[2]}" if at else unit


def escape(text: str) -> str:
    """As `systemd-escape TEXT`: `/` becomes `-`, whatever is unusual becomes `\\xNN`."""
    out = ""
    for index, byte in enumerate(text.encode()):
        if byte == ord("/"):
            out += "-"
        elif byte not in _PLAIN or (index == 0 and byte == ord(".")):
            out += f"\\x{byte:02x}"
        else:
            out += chr(byte)
    return out


def escape_path(path: PurePath) -> str:
    """As `systemd-escape --path PATH`, for an absolute path without `..`."""
    trimmed = str(path).strip("/")
    return escape(trimmed) if trimmed else "-"


def mount(path: PurePath) -> str:
    """The mount unit of a directory."""
    return escape_path(path) + ".mount"


def covering(name: str, path: PurePath, claimed: Collection[PurePath]) -> str:
    """The unit that mounts a replicated directory over itself. `claimed`: see claims.py."""
    return f"ha-mount@{name}.service" if path in claimed else mount(path)


def bus_path(unit: str) -> str:
    """The object of a unit on the bus (sd_bus_path_encode(3))."""
    encoded = unit.encode()
    label = "".join(
        chr(byte)
        if byte in _ALPHANUMERIC and not (index == 0 and chr(byte).isdigit())
        else f"_{byte:02x}"
        for index, byte in enumerate(encoded)
    )
    return _UNIT_PATHS + (label or "_")


def unit_of_bus_path(path: str) -> str | None:
    """The unit that an object on the bus stands for, None if it is no unit's."""
    if not path.startswith(_UNIT_PATHS):
        return None
    label = path.removeprefix(_UNIT_PATHS)
    first, *escaped = label.split("_")
    try:
        decoded = first.encode() + b"".join(
            bytes.fromhex(part[:2]) + part[2:].encode() for part in escaped
        )
        return decoded.decode()
    except ValueError:
        return None
