# SPDX-License-Identifier: Apache-2.0
"""What replication costs: `make bench` measures, and nothing here passes or fails."""
