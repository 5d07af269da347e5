# SPDX-License-Identifier: Apache-2.0
"""Virtual IP addresses: taken by the primary, announced to the segment, kept, given back."""
