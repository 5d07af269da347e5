# SPDX-License-Identifier: Apache-2.0
"""The failover core: pure, deterministic, without I/O; time is an input.

`step(state, event) -> (state, effects)` is all that it does. It never asks and
never waits: what the world answers comes back as a later event, so that a
recorded list of events replays a failover exactly.
"""
