# SPDX-License-Identifier: Apache-2.0
"""Complete configurations to begin with. Each is a file beside this one, and says in its
second line what it is for."""

from __future__ import annotations

from pathlib import Path

_DIRECTORY = Path(__file__).parent


def summaries() -> dict[str, str]:
    """What each template is for, by its name."""
    return {
        path.stem: path.read_text(encoding="utf-8").splitlines()[1].removeprefix("# ")
        for path in sorted(_DIRECTORY.glob("*.toml"))
    }


def text(name: str) -> str:
    """The file as it stands. Raises KeyError if there is no such template."""
    if name not in summaries():
        raise KeyError(name)
    return (_DIRECTORY / f"{name}.toml").read_text(encoding="utf-8")
