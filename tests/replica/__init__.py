# SPDX-License-Identifier: Apache-2.0
"""The data plane on real FUSE mounts: two replicators of one machine, on loopback addresses."""
