# SPDX-License-Identifier: Apache-2.0
"""Keeping the processes that run for months small. Standard library only."""
