# SPDX-License-Identifier: Apache-2.0
"""From the power cut until the virtual IP answers: haoperator beside others, in the lab."""
