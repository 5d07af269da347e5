# SPDX-License-Identifier: Apache-2.0
"""The heartbeat: each node tells the other its status, and notices when it falls silent."""
