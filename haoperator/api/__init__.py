# SPDX-License-Identifier: Apache-2.0
"""The operator's face on the system bus: `org.haoperator1`."""
