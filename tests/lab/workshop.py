# SPDX-License-Identifier: Apache-2.0
"""Work in a container of the pair: a program that says what it has made durable."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .cluster import Pair
from .command import LabError, clean_environment
from .node import Node
from .waiting import until


def in_container(app: str, *command: str) -> tuple[str, ...]:
    return ("docker", "exec", "-i", f"ha-{app}", *command)


def running(node: Node, app: str) -> None:
    """Returns when the container of an application runs on a node."""
    asked = ("docker", "inspect", "--format={{.State.Running}}", f"ha-{app}")
    until(
        lambda: node.exec(*asked, check=False).stdout.strip() == "true",
        f"the container of {app} on {node.name}",
        within=90,
        hint=lambda: node.journal("-n", "20", "-u", f"ha-app@{app}"),
    )


class Work:
    """A program in the container `workshop`, which says what it has made durable."""

    def __init__(self, name: str, enough: int, pair: Pair, directory: Path) -> None:
        self.pair = pair
        self.program = Path(__file__).with_name(f"work_{name}.py").read_text()
        self.enough = enough
        self.root = f"/data/{name}"
        self.log = directory / f"{name}.log"
        self.errors = directory / f"{name}.errors"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        node = self.pair.primary
        running(node, "workshop")
        making = 'rm -rf "$0"; mkdir -p "$0"'
        node.exec(*in_container("workshop", "sh", "-ec", making, self.root), timeout=120)
        working = in_container("workshop", "python3", "-c", self.program, "run", self.root)
        with self.log.open("wb") as out, self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [*node.entering(), *working],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=errors,
                env=clean_environment(),
            )

    def acknowledged(self) -> list[str]:
        text = self.log.read_text()
        return text[: text.rfind("\n") + 1].splitlines()

    def wait(self) -> None:
        assert self.process
        until(
            lambda: len(self.acknowledged()) >= self.enough,
            f"{self.enough} acknowledged steps",
            within=90,
            hint=lambda: f"{self.log}: {self.acknowledged()[-2:]}; {self.errors.read_text()}",
        )

    def check(self, node: Node) -> str:
        assert self.process
        self.process.wait(60)
        running(node, "workshop")
        acknowledged = self.acknowledged()
        checking = in_container("workshop", "python3", "-c", self.program, "check", self.root)
        said = node.exec(*checking, stdin="".join(f"{a}\n" for a in acknowledged), timeout=180)
        if wrong := said.stdout.strip():
            raise LabError(f"{self.root} on {node.name}: {wrong}", str(self.log))
        return f"{len(acknowledged)} steps"

    def close(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
