# SPDX-License-Identifier: Apache-2.0
"""Applications: Docker containers that live as long as their unit, and no longer."""
