# SPDX-License-Identifier: Apache-2.0
"""The operator: feeds what happens to the pure core and carries out what it wants."""
