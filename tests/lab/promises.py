# SPDX-License-Identifier: Apache-2.0
"""The test's side of the promising writer: what was promised, and whether it is kept."""

from __future__ import annotations

import subprocess
from pathlib import Path

from .cluster import DATA
from .command import LabError, clean_environment
from .node import Node
from .waiting import until

PROGRAM = Path(__file__).with_name("promising.py")
ROOT = f"{DATA}/promises"


class Promises:
    """One run of the writer in a directory of its own, on the node that is primary."""

    def __init__(self, node: Node, name: str, log: Path) -> None:
        self.node = node
        self.root = f"{ROOT}/{name}"
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                [*node.entering(), "python3", "-c", PROGRAM.read_text(), "write", self.root],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=clean_environment(),
            )

    def lines(self) -> list[str]:
        """The promises so far. The last line may be half written, and counts as none."""
        text = self.log.read_text(errors="replace")
        return text[: text.rfind("\n") + 1].splitlines()

    def wait(self, more: int, within: float = 60.0) -> None:
        """Returns when `more` promises have been made; raises LabError when one was refused."""
        before = len(self.lines())
        until(
            lambda: len(self.lines()) >= before + more or self.refused(),
            f"{more} more promises of {self.node.name} to {self.root}",
            within=within,
            hint=lambda: f"{self.log}: {self.lines()[-3:]}",
        )
        if refused := self.refused():
            raise LabError(f"the application met an error: {refused}", str(self.log))

    def refused(self) -> str:
        """What went wrong for the writer; a node that loses its power just ends it."""
        kinds = ("log", "file", "gone", "replace", "block", "page")
        return next((line for line in self.lines() if line.split()[:1][0] not in kinds), "")

    def end(self, within: float = 60.0) -> None:
        """Ends the writer in order, or sees that it ended with its node."""
        assert self.process.stdin
        self.process.stdin.close()
        try:
            self.process.wait(within)
        except subprocess.TimeoutExpired as err:
            self.process.kill()
            raise LabError(f"the writer hangs on {self.node.name}", str(self.log)) from err

    def check(self, node: Node) -> None:
        """Raises LabError unless `node` has all that was promised."""
        program = PROGRAM.read_text()
        promised = "\n".join(self.lines()) + "\n"
        checking = ("python3", "-c", program, "check", self.root)
        if broken := node.exec(*checking, stdin=promised, timeout=120).stdout.strip():
            raise LabError(
                f"{node.name} does not have what was promised in {self.root}:\n{broken}",
                str(self.log),
            )

    def remove(self, node: Node) -> None:
        node.exec("rm", "-rf", self.root, timeout=120)
