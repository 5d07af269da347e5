# SPDX-License-Identifier: Apache-2.0
"""`hactl`, the administrator's command."""
