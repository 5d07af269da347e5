# SPDX-License-Identifier: Apache-2.0
"""From a file to a checked `Config`, or to everything that is wrong with it."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

import tomli

from tomlconfig import build, rules
from tomlconfig.document import Document
from tomlconfig.errors import ConfigError, Problem
from tomlconfig.model import Config

# Far above any real file; bounds the time that a wrong file can take.
_MAX_BYTES = 1024 * 1024
_TOML_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")


def load(path: str | Path) -> Config:
    """Read and check the file at `path`. Raises ConfigError, and nothing else."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as err:
        reason = getattr(err, "strerror", None) or str(err)
        raise ConfigError([Problem(path, 0, "", f"cannot be read: {reason}")]) from err
    return parse(data, path)


def parse(data: bytes, source: Path) -> Config:
    """Check the content of a file; `source` is how errors name it. Raises ConfigError."""
    text = _decoded(data, source)
    document = Document(source, text, _toml(text, source))
    rules.check(document)
    if document.problems:
        raise ConfigError(document.problems)
    return build.config(document, sha256(data).hexdigest())


def _decoded(data: bytes, source: Path) -> str:
    if len(data) > _MAX_BYTES:
        message = f"expected a file of at most {_MAX_BYTES // 1024} KiB"
        raise ConfigError([Problem(source, 0, "", message)])
    try:
        return data.decode()
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        message = f"expected UTF-8 text, got the byte 0x{data[err.start]:02x}"
        raise ConfigError([Problem(source, line, "", message)]) from err


def _toml(text: str, source: Path) -> dict[str, object]:
    try:
        return tomli.loads(text)
    except RecursionError as err:
        raise ConfigError([Problem(source, 0, "", "its brackets are nested too deeply")]) from err
    except ValueError as err:
        # TOMLDecodeError is one; numbers that are too long or dates that are none raise others.
        message = str(err)
        line = 0
        if place := _TOML_PLACE.search(message):
            line = int(place[1]) if place[1] else text.rstrip("\n").count("\n") + 1
            message = message[: place.start()] + (f", column {place[2]}" if place[2] else "")
        message = f"not TOML: {message[:1].lower()}{message[1:]}"
        hint = "see https://toml.io; text values stand in quotes"
        raise ConfigError([Problem(source, line, "", message, hint)]) from err
