# SPDX-License-Identifier: Apache-2.0
"""Where the configuration is, and how a program says that it is no use starting it again."""

from __future__ import annotations

CONFIGURATION = "/etc/haoperator/cluster.toml"
"""The same file on both nodes. A plain string: some who name it are too small for pathlib."""

EXIT_MISCONFIGURED = 78
"""EX_CONFIG of sysexits.h: the units' `RestartPreventExitStatus=`."""
