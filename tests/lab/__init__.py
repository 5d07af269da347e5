# SPDX-License-Identifier: Apache-2.0
"""A lab of two real servers on one machine, for the tests and the demonstration.

    from tests.lab import Lab
    lab = Lab()
    lab.up()
    lab.a.exec("systemctl", "status")
    lab.a.power_cut()

By hand: `python3 -m tests.lab --help`.
"""

from .command import LabError
from .lab import Lab
from .node import Node
from .place import Place
from .waiting import until

__all__ = ["Lab", "LabError", "Node", "Place", "until"]
