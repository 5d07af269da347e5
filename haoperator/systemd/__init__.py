# SPDX-License-Identifier: Apache-2.0
"""systemd: names and texts of units, the generator, jobs, sd_notify."""
