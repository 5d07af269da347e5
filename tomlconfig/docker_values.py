# SPDX-License-Identifier: Apache-2.0
"""Types of values that become options of a Docker container."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Mapping
from ipaddress import ip_address

from tomlconfig import values as v
from tomlconfig.app_values import ARGUMENT
from tomlconfig.model import Healthcheck
from tomlconfig.values import Type, Wrong, shown, text_of

_WORD = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_USER = re.compile(rf"{_WORD}(?::{_WORD})?")
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)(?!-)[A-Za-z0-9-]{1,63}(?:\.(?!-)[A-Za-z0-9-]{1,63})*")
_GPUS = re.compile(r"all|[1-9]\d{0,3}|device=[A-Za-z0-9-]+(?:,[A-Za-z0-9-]+)*", re.ASCII)
_DEVICE = re.compile(r"/[^:]+(?::/[^:]+(?::[rwm]{1,3})?)?")
_VOLUME_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{1,127}")
_TMPFS = re.compile(r"/[^:]*(?::[a-z0-9=,%_]+)?")
_CAPABILITY = re.compile(r"(?:CAP_)?([A-Z][A-Z0-9_]+)")
_LIMIT = re.compile(r"(-1|\d{1,19})(?::(-1|\d{1,19}))?", re.ASCII)
_LIMITS = (
    *("core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc"),
    *("rss", "rtprio", "rttime", "sigpending", "stack"),
)
_OWN_LABELS = "org.haoperator1."
_HEALTHCHECK_MS = 1e-3
"""Docker refuses a shorter interval."""


def _matching(pattern: re.Pattern[str]) -> Callable[[object], str]:
    def read(value: object) -> str:
        text = text_of(value)
        if not pattern.fullmatch(text):
            raise Wrong("")
        return text

    return read


def _path_in_container(value: object) -> str:
    text = text_of(value)
    if not text.startswith("/"):
        raise Wrong("it is relative")
    return text


def _cpus(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Wrong("", "write it without quotes" if isinstance(value, str) else "")
    return float(value)


def _capability(value: object) -> str:
    match = _CAPABILITY.fullmatch(text_of(value))
    if match is None:
        raise Wrong("")
    return match[1]


def _signal(value: object) -> str:
    text = text_of(value).upper()
    name = text if text.startswith("SIG") else f"SIG{text}"
    if name not in signal.Signals.__members__ and not name.startswith("SIGRTMIN+"):
        raise Wrong("there is no such signal")
    return name


def _extra_host(value: object) -> str:
    name, _, address = text_of(value).partition(":")
    if not _HOST_NAME.fullmatch(name):
        raise Wrong("")
    if address != "host-gateway":
        try:
            ip_address(address.strip("[]"))
        except ValueError:
            raise Wrong(f"{shown(address)} is no IP address") from None
    return f"{name}:{address}"


def _by_name(value: object, name_of: Callable[[str], str], content: Type) -> Mapping[str, object]:
    """A table; `name_of` says what is wrong with a key, or nothing."""
    if not isinstance(value, dict):
        raise Wrong("")
    read = {}
    for name, item in value.items():
        if problem := name_of(name):
            raise Wrong(problem, at=(name,))
        try:
            read[name] = content.read(item)
        except Wrong as wrong:
            reason = f": {wrong.message}" if wrong.message else f", not {content.expected}"
            raise Wrong(f"{name} is {shown(item)}{reason}", wrong.hint, (name,)) from None
    return read


def _limit(value: object) -> tuple[int, int]:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    match = _LIMIT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise Wrong("")
    soft, hard = int(match[1]), int(match[2] or match[1])
    if hard != -1 and (soft == -1 or soft > hard):
        raise Wrong("the soft limit is above the hard one")
    return soft, hard


def _ulimits(value: object) -> Mapping[str, object]:
    def problem(name: str) -> str:
        return "" if name in _LIMITS else f"{shown(name)} is not one of {', '.join(_LIMITS)}"

    return _by_name(value, problem, LIMIT)


def _labels(value: object) -> Mapping[str, object]:
    def problem(name: str) -> str:
        if not name.strip():
            return "a label needs a name"
        return f"{_OWN_LABELS}* is for haoperator itself" if name.startswith(_OWN_LABELS) else ""

    return _by_name(value, problem, ARGUMENT)


def _log_options(value: object) -> Mapping[str, object]:
    return _by_name(value, lambda name: "" if name.strip() else "an option needs a name", ARGUMENT)


def _healthcheck(value: object) -> Healthcheck:
    if not isinstance(value, dict):
        raise Wrong("")
    read: dict[str, object] = {}
    for name, item in value.items():
        kind = _HEALTHCHECK.get(name)
        if kind is None:
            raise Wrong(f"{shown(name)} is not one of {', '.join(_HEALTHCHECK)}", at=(name,))
        try:
            read[name] = kind.read(item)
        except Wrong as wrong:
            reason = f": {wrong.message}" if wrong.message else f", not {kind.expected}"
            raise Wrong(f"{name} is {shown(item)}{reason}", wrong.hint, (name,)) from None
    if read.get("disable"):
        if len(read) > 1:
            raise Wrong("disable stands alone")
        return Healthcheck(("NONE",))
    if not read.get("command"):
        raise Wrong("it has no command", 'write for example command = "redis-cli ping"')
    command = read.pop("command")
    read.pop("disable", None)
    words = ("CMD-SHELL", command) if isinstance(command, str) else ("CMD", *command)  # type: ignore[misc]
    return Healthcheck(words, **read)  # type: ignore[arg-type]


def _probe_command(value: object) -> object:
    return text_of(value) if isinstance(value, str) else v.list_of(ARGUMENT).read(value)


def _probe_duration(value: object) -> object:
    seconds = v.DURATION.read(value)
    assert isinstance(seconds, float)
    if seconds < _HEALTHCHECK_MS:
        raise Wrong("it is less than 1ms")
    return seconds


def _retries(value: object) -> object:
    count = v.COUNT.read(value)
    assert isinstance(count, int)
    if not 1 <= count <= 1000:
        raise Wrong("it is not from 1 to 1000")
    return count


_PROBE_DURATION = Type("duration", v.DURATION.expected, _probe_duration)
_HEALTHCHECK = {
    "command": Type("command", "a line for the shell, or a list of words", _probe_command),
    "interval": _PROBE_DURATION,
    "timeout": _PROBE_DURATION,
    "start_period": _PROBE_DURATION,
    "retries": Type("whole number", "a whole number", _retries),
    "disable": v.FLAG,
}

USER = Type("user", 'a user, with a group if wanted, such as "999" or "app:app"', _matching(_USER))
HOST_NAME = Type("host name", 'a host name, such as "shop-1"', _matching(_HOST_NAME))
PATH_INSIDE = Type("path", 'an absolute path in the container, such as "/app"', _path_in_container)
GPUS = Type(
    "GPUs", '"all", a number such as "2", or devices such as "device=0,2"', _matching(_GPUS)
)
CPUS = Type("number", "a number, such as 1.5", _cpus)
CAPABILITY = Type("capability", 'a capability of Linux, such as "NET_ADMIN"', _capability)
VOLUME_NAME = Type(
    "volume", 'the name of a Docker volume, such as "pgdata"', _matching(_VOLUME_NAME)
)
DEVICE = Type(
    "device",
    'a device as Docker writes it, such as "/dev/ttyUSB0" or "/dev/a:/dev/b:rw"',
    _matching(_DEVICE),
)
TMPFS = Type("tmpfs", 'a path with options if wanted, such as "/run:size=64m"', _matching(_TMPFS))
DRIVER = Type(
    "log driver",
    'the name of a log driver, such as "journald"',
    _matching(re.compile(rf"{_WORD}(?:/{_WORD})?(?::{_WORD})?")),
)
EXTRA_HOST = Type(
    "host:address",
    'a name with its address, such as "db:10.0.0.7" or "up:host-gateway"',
    _extra_host,
)
SIGNAL = Type("signal", 'the name of a signal, such as "SIGINT"', _signal)
LIMIT = Type("limit", 'a limit, such as 1024, or "1024:4096" for soft and hard', _limit)
ULIMITS = Type("table of limits", 'a table of limits, such as { nofile = "1024:4096" }', _ulimits)
LABELS = Type("table of strings", 'a table of labels, such as { team = "shop" }', _labels)
LOG_OPTIONS = Type("table of strings", 'a table, such as { max-size = "10m" }', _log_options)
HEALTHCHECK = Type(
    "table",
    'a table, such as { command = "redis-cli ping", interval = "2s", timeout = "1s", retries = 3 }',
    _healthcheck,
)
