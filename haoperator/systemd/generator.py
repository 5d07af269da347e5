# SPDX-License-Identifier: Apache-2.0
"""`haoperator-generator`: units from the configuration, at boot and at daemon-reload.

See systemd.generator(7). There is no bus, no network and no log yet when this
runs, so an error becomes a unit whose failure says it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from haoperator.lean.configuration import CONFIGURATION
from haoperator.systemd import texts
from haoperator.systemd.claims import claimed
from tomlconfig import ConfigError, Problem, load

ACCEPTED = Path("/run/haoperator/accepted.toml")


def main() -> int:
    """Argument: the directory to write to (systemd hands over three, the first one is normal)."""
    if len(sys.argv) < 2:
        print("usage: haoperator-generator NORMAL-DIR [EARLY-DIR LATE-DIR]", file=sys.stderr)
        return 2
    generate(Path(CONFIGURATION), ACCEPTED, os.uname().nodename, Path(sys.argv[1]))
    return 0


def generate(source: Path, accepted: Path, node: str, directory: Path) -> None:
    """Write everything for `node` below `directory`, and a unit for what is wrong with `source`.

    `accepted` is a copy of the last file without an error since the boot. systemd has
    thrown away all that was generated from it when this runs, so after a daemon-reload
    with an error in `source` the units come from the copy, and what runs stays as it is.

    Without a configuration nothing is written: the units say that by their conditions.
    """
    if not source.exists():
        accepted.unlink(missing_ok=True)
        return
    try:
        write(_for_node(source, node), directory)
        _copy(source, accepted)
    except Exception as err:  # Whatever it is: a generator has nowhere else to say it.
        message = str(err) if isinstance(err, ConfigError) else f"{type(err).__name__}: {err}"
        write(texts.for_error(source, message), directory)
        if accepted.exists():
            write(_for_node(accepted, node), directory)


def _for_node(source: Path, node: str) -> texts.Generated:
    config = load(source)
    if node not in config.nodes:
        message = f"this host, {node}, is not a node of the cluster"
        hint = f"its nodes: {config.nodes[0]} and {config.nodes[1]}"
        raise ConfigError([Problem(source, 0, "node", message, hint)])
    return texts.for_config(config, claimed(each.path for each in config.replicate))


def _copy(source: Path, accepted: Path) -> None:
    accepted.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = accepted.with_suffix(".new")
    temporary.write_bytes(source.read_bytes())
    temporary.replace(accepted)


def write(generated: texts.Generated, directory: Path) -> None:
    """Replace each file and link as a whole, so that no reader sees half of one."""
    for name, text in generated.files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_text(text)
        temporary.replace(path)
    for name, target in generated.links.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.new")
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
