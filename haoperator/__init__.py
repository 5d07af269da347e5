# SPDX-License-Identifier: Apache-2.0
"""High availability for Docker on two plain Linux servers, as an operator on systemd and D-Bus."""

__version__ = "0.1.0"
