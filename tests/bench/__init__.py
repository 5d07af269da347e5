# SPDX-License-Identifier: Apache-2.0
"""What replication costs: `python3 -m tests.bench` (root) measures, nothing here passes or fails."""
