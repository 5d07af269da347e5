# SPDX-License-Identifier: Apache-2.0
"""Where the configuration is, and how a program says that it is no use starting it again."""

from __future__ import annotations

CONFIGURATION = "/etc/haoperator/cluster.toml"
"""The same file on both nodes. A plain string: some who name it are too small for pathlib."""

VIP_VARIABLE = "HAOPERATOR_VIP"
"""In the environment of a VIP's unit, by the generator: address, prefix length, interface."""

EXIT_MISCONFIGURED = 78
"""EX_CONFIG of sysexits.h: the units' `RestartPreventExitStatus=`."""

EXIT_UNAVAILABLE = 69
"""EX_UNAVAILABLE: it cannot be had on this node now. Not started again by systemd, so that
the unit fails and the operator decides: the other node, or this one again."""
