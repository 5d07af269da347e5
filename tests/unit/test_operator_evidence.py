# SPDX-License-Identifier: Apache-2.0
"""The operator acts on a silence only if the heartbeat, asked anew, still tells it."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from haoperator.core import events as on
from haoperator.operator.neighbours import Heartbeat
from tests.unit.heartbeat_nodes import DETECT, Impostor, free_segment, running


def test_silence_is_confirmed_by_a_daemon_that_still_tells_it(tmp_path: Path) -> None:
    async def story() -> None:
        segment = free_segment()
        async with running("node-a", segment, tmp_path) as a:
            await a.until("get_peer_is_silent", True)
            await a.until("get_witness", "reachable")
            posted: list[on.Event] = []
            heartbeat = Heartbeat(posted.append, lambda: None)
            assert a.connection is not None
            await heartbeat.connect(a.connection)
            probe = on.Probe(heartbeat.levels.get("VipProbe", "none"))
            reached, unreached = on.Witness.REACHABLE, on.Witness.UNREACHABLE
            assert await heartbeat.confirms(reached, probe, 5.0)

            assert not await heartbeat.confirms(unreached, probe, 5.0)
            assert posted[-1] == on.PeerLost()  # what holds now was read for the core

            os.kill(a.process.pid, signal.SIGSTOP)
            assert not await heartbeat.confirms(reached, probe, 0.3)
            os.kill(a.process.pid, signal.SIGCONT)
            await a.until("get_peer_is_silent", True)

            peer = Impostor(segment)
            try:
                await peer.introduce(a)
                assert not await heartbeat.confirms(reached, probe, DETECT)
            finally:
                peer.close()

    asyncio.run(story())
