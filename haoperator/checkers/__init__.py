# SPDX-License-Identifier: Apache-2.0
"""Checkers: each asks one question again and again, and ends when the answer stays wrong."""
