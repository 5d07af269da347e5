# SPDX-License-Identifier: Apache-2.0
"""Types of values that describe directories and what runs on them."""

from __future__ import annotations

import re

from tomlconfig.model import Ready, ReadyKind
from tomlconfig.network_values import HOST_PORT
from tomlconfig.values import Type, Wrong, shown, text_of

_PORT = r"\d{1,5}(?:-\d{1,5})?"
_PUBLISHED = re.compile(
    rf"(?:(?:(?:\d+\.\d+\.\d+\.\d+|\[[0-9A-Fa-f:.]+\]):)?(?:{_PORT})?:)?{_PORT}"
    r"(?:/(?:tcp|udp|sctp))?",
    re.ASCII,
)
_UNIT = re.compile(
    r"[A-Za-z0-9:_.\\-]+(?:@[A-Za-z0-9:_.\\-]+)?"
    r"\.(?:service|socket|target|timer|path|mount|automount|swap)"
)
_VOLUME = re.compile(r"(?:/[^:]*|[A-Za-z0-9][A-Za-z0-9_.-]*):/[^:]*(?::[A-Za-z0-9,_-]+)?")


def _absolute_path(value: object) -> str:
    text = text_of(value)
    if not text.startswith("/"):
        raise Wrong("it is relative", f'write it from the root, such as "/srv/{text}"')
    parts = [part for part in text.split("/") if part not in {"", "."}]
    if ".." in parts:
        raise Wrong('it contains ".."', "write the path without it")
    if text != text.rstrip() or text.endswith("\\"):
        raise Wrong("it ends in a blank or a backslash, which unit files cannot carry")
    return "/" + "/".join(parts)


def _published_port(value: object) -> str:
    if not isinstance(value, str) or not _PUBLISHED.fullmatch(value):
        raise Wrong("")
    numbers = re.sub(r"^(\[.*\]|\d+\.\d+\.\d+\.\d+):|/.*$", "", value)
    if any(not 1 <= int(number) <= 65_535 for number in re.findall(r"\d+", numbers)):
        raise Wrong("ports are numbers from 1 to 65535")
    return value


def _volume(value: object) -> str:
    text = text_of(value)
    if not _VOLUME.fullmatch(text) or "/../" in text + "/":
        raise Wrong("")
    return text


def _command_line(value: object) -> str:
    import shlex

    text = text_of(value)
    try:
        words = shlex.split(text)
    except ValueError as err:
        raise Wrong(f"its quotes are not closed: {err}") from None
    if not words or not words[0].startswith("/"):
        raise Wrong("the program's path is not absolute", "no shell looks it up in PATH")
    return text


def _ready(value: object) -> Ready:
    word, colon, target = text_of(value).partition(":")
    try:
        kind = ReadyKind(word)
    except ValueError:
        raise Wrong("") from None
    if (kind in (ReadyKind.TCP, ReadyKind.LOG)) != bool(target) or bool(colon) != bool(target):
        raise Wrong("")
    if kind is ReadyKind.TCP:
        try:
            HOST_PORT.read(target)
        except Wrong:
            raise Wrong(f"{shown(target)} is not {HOST_PORT.expected}") from None
    if kind is ReadyKind.LOG:
        try:
            re.compile(target)
        except re.error as err:
            raise Wrong(f"it is no regular expression: {err}") from None
    return Ready(kind, target)


def _unit(value: object) -> str:
    text = text_of(value)
    if not _UNIT.fullmatch(text) or len(text) > 255:
        raise Wrong("", f'write "{text}.service"' if _UNIT.fullmatch(f"{text}.service") else "")
    return text


def _process(value: object) -> str:
    text = text_of(value)
    if text.startswith("/"):
        return _absolute_path(text)
    if "/" in text:
        raise Wrong("it is neither a name nor an absolute path")
    return text


def _argument(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise Wrong("")
    return value


def _table_of_strings(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise Wrong("")
    for name, content in value.items():
        if not name or "=" in name or "\0" in name:
            raise Wrong(f"{shown(name)} cannot be the name of a variable", at=(name,))
        if not isinstance(content, str) or "\0" in content:
            raise Wrong(f"the value of {name} is not a string", "put it in quotes", at=(name,))
    return dict(value)


PATH = Type("path", 'an absolute path, such as "/srv/shop/data"', _absolute_path)
PORT = Type("port", 'a port as Docker writes it, such as "8080:80" or "53:53/udp"', _published_port)
VOLUME = Type(
    "volume",
    'a volume as Docker writes it, such as "/srv/shop/data:/data" or "cache:/c:ro"',
    _volume,
)
COMMAND_LINE = Type(
    "command line", 'a command line, such as "/usr/bin/redis-cli ping"', _command_line
)
READY = Type(
    "readiness",
    '"health", "tcp:127.0.0.1:5432", "log:REGULAR EXPRESSION", "notify" or "none"',
    _ready,
)
UNIT = Type("unit", 'the name of a systemd unit, such as "nginx.service"', _unit)
PROCESS = Type(
    "process",
    'the name of a process or the path of its program, such as "nginx" or "/usr/sbin/nginx"',
    _process,
)
ARGUMENT = Type("string", "a string", _argument, unique=False)
STRINGS_BY_NAME = Type(
    "table of strings", 'a table of strings, such as { LANG = "C.UTF-8" }', _table_of_strings
)
