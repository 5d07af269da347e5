# SPDX-License-Identifier: Apache-2.0
"""Parts by themselves, on one machine, in milliseconds."""
