# SPDX-License-Identifier: Apache-2.0
"""The data plane: FUSE mounts whose changes are on both nodes before they return.

See DESIGN.md beside this file for the protocol, the lock order and the races.
"""
