# SPDX-License-Identifier: Apache-2.0
"""The loop around the core: one event after the other, in, and its effects out.

Nothing here decides. An effect that takes time runs beside the loop and comes back as
an event; a verb of the D-Bus interface waits for the core's `Accept` or `Refuse`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from dbus_next import DBusError
from dbus_next.aio import MessageBus

from haoperator.api.caller import note_sender, require
from haoperator.api.interface import BUS_NAME, ROOT, ClusterInterface, GateInterface, Refused
from haoperator.core import effects as do
from haoperator.core import events as on
from haoperator.core.state import Contact, Policy, State, shown
from haoperator.core.status import Maintenance, Role, Status, Stream
from haoperator.core.step import step
from haoperator.operator import arbiter, memory
from haoperator.operator.neighbours import SIGN_OF_LIFE_SECONDS, Heartbeat, Replicator
from haoperator.operator.parts import Parts
from haoperator.operator.report import peer_state, report
from haoperator.operator.units import Units
from haoperator.systemd import names, notify
from haoperator.systemd.bus import Endpoint
from haoperator.systemd.jobs import SystemdError
from tomlconfig import Config, Failover, Keep

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
ALERT_TICK_SECONDS = 0.1
"""While the peer is silent, or writes wait: how late a decision may be that waits for time; less
with a fast `detect`."""
ARBITER_LEAST_SECONDS = 1.0
"""How long the arbiter may take to answer, at least; else as long as the loss of the peer."""
LEAVE_SECONDS = 2.0
"""How long an orderly departure waits for its announcement to be out."""


@dataclass
class _Input:
    """An event; who waits for the core's answer to it; who waits until it went through."""

    event: on.Event
    answer: asyncio.Future[None] | None = None
    processed: asyncio.Future[None] | None = None


class Operator:
    """One node's operator. `run` serves until it is cancelled or leaves."""

    def __init__(self, config: Config, node: str) -> None:
        policy = Policy(
            me=node,
            peer=config.peer_of(node),
            detect=config.timing.detect,
            automatic=config.cluster.failover is Failover.AUTOMATIC,
            preferred=config.cluster.preferred,
            arbiter=config.arbiter is not None,
            former_primary_wins=config.splitbrain.keep is Keep.FORMER_PRIMARY,
            restart_window=max((app.restart_window for app in config.apps), default=0.0),
        )
        self.state = State(
            policy,
            seed=os.urandom(16).hex(),
            now=time.monotonic(),
            maintenance=memory.recall(),
            joins=memory.joins(),
        )
        self._config = config
        self._inputs: asyncio.Queue[_Input] = asyncio.Queue()
        self._beside = asyncio.TaskGroup()
        self._gate_waits: list[asyncio.Future[None]] = []
        self._to_publish = asyncio.Event()
        self._publication: Status | None = None
        self._published_at = 0.0
        self._left = asyncio.Event()
        self._stepped = asyncio.Event()
        self._heartbeat = Heartbeat(self.post, lambda: self._later(self._heartbeat_returned()))
        self._replicator = Replicator(self.post, lambda: self._later(self._replicator.refresh()))
        self._units = Units(config, self.post, self._units_changed)
        self._cluster = ClusterInterface(self, self._require)
        self._parts = Parts(config)
        self._endpoint = Endpoint(
            BUS_NAME,
            {ROOT: [self._cluster, GateInterface(self)], **self._parts.exports()},
            connected=self._connected,
        )

    # -- running

    async def run(self) -> None:
        """Serve until `leave` is through. Raises what a part of it raises."""
        async with self._beside:
            tasks = [
                self._beside.create_task(work)
                for work in (
                    self._endpoint.run(),
                    self._take_steps(),
                    self._let_time_pass(),
                    self._publish_latest(),
                    notify.prove_alive(self._make_progress),
                )
            ]
            await self._left.wait()
            for task in tasks:
                task.cancel()

    def post(self, event: on.Event) -> None:
        """Queue an event for the core."""
        self._inputs.put_nowait(_Input(event))

    async def leave(self) -> None:
        """SIGTERM came. A mere restart of the operator says nothing to the peer, because it
        disturbs nothing; a node that stops or leaves the cluster announces it."""
        notify.stopping()
        if await self._units.is_leaving():
            memory.leaves()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LEAVE_SECONDS):
                    await self._processed(on.LeaveCommanded())
                    while self.state.pending:
                        self._stepped.clear()
                        await self._stepped.wait()
                    await self._heartbeat.publish(self.state.published or Status(""))
        self._left.set()

    async def _connected(self, bus: MessageBus) -> None:
        bus.add_message_handler(note_sender)
        await self._units.connect(bus)
        await self._replicator.connect(bus)
        await self._heartbeat.connect(bus)
        self._to_publish.set()
        notify.ready(self._status_line())

    async def _heartbeat_returned(self) -> None:
        await self._heartbeat.refresh()
        self._to_publish.set()

    async def _take_steps(self) -> None:
        while True:
            item = await self._inputs.get()
            before = shown(self.state)
            self.state, effects = step(self.state, item.event, time.monotonic())
            for effect in effects:
                self._carry_out(effect, item.answer)
            if item.processed is not None and not item.processed.done():
                item.processed.set_result(None)
            self._stepped.set()
            if time.monotonic() - self._published_at >= SIGN_OF_LIFE_SECONDS:
                self._to_publish.set()
            self._announce(before)

    async def _processed(self, event: on.Event) -> None:
        """Post an event and wait until the core has taken its step."""
        processed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._inputs.put_nowait(_Input(event, processed=processed))
        await processed

    async def _let_time_pass(self) -> None:
        while True:
            self._stepped.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._tick()):
                    await self._stepped.wait()
                    continue  # every event brings the time with it
            if self.state.contact is Contact.SILENT:
                await self._replicator.refresh()  # when the peer was heard on the stream
            self.post(on.TimePassed())

    def _tick(self) -> float:
        silent, held = self.state.contact is Contact.SILENT, self.state.stream is Stream.HELD
        alert = min(ALERT_TICK_SECONDS, self.state.policy.detect / 8)
        return alert if silent or held else TICK_SECONDS

    async def _make_progress(self) -> None:
        """What the watchdog guards: an event goes through the loop."""
        await self._processed(on.TimePassed())

    # -- effects

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        self._beside.create_task(work)

    def _carry_out(self, effect: do.Effect, answer: asyncio.Future[None] | None) -> None:
        match effect:
            case do.Publish(status):
                self._publication = status
                self._to_publish.set()
            case do.StartPrimary():
                self._later(self._units.start_role(names.PRIMARY))
            case do.StartSecondary():
                self._later(self._units.start_role(names.SECONDARY))
            case do.OpenGate():
                self._answer_gate(None)
            case do.RefuseGate(reason):
                self._answer_gate(reason)
            case do.Claim() | do.Disclaim():
                self._later(self._ask_arbiter(effect))
            case do.KeepMaintenance(maintenance):
                self._keep(maintenance)
            case do.RestartApp(unit):
                self._later(self._units.try_again(unit))
            case do.Accept():
                if answer is not None and not answer.done():
                    answer.set_result(None)
            case do.Refuse(reason):
                if answer is not None and not answer.done():
                    answer.set_exception(Refused(reason))
            case (
                do.BecomePrimary()
                | do.BecomeSecondary()
                | do.ContinueAlone()
                | do.MarkOutdated()
                | do.YieldBranch()
            ):
                self._later(self._command(effect, self.state))

    async def _command(self, effect: do.Effect, decided: State) -> None:
        """To the replicator. Permission to write without the peer rests on evidence that ages:
        it holds for half of `detect`, and after a silence from when that was asked for anew.
        Else a process that stood still, this one or the heartbeat, would act on old evidence.
        """
        detect, asked_at = decided.policy.detect, time.monotonic()
        alone = isinstance(effect, do.BecomePrimary | do.ContinueAlone) and not decided.forced
        if alone and decided.contact is Contact.SILENT:
            heartbeat = self._heartbeat
            if not await heartbeat.confirms(decided.witness, decided.probe, detect / 4):
                self.post(on.ReplicaFailed("the silence of the peer was not confirmed"))
                return
        await self._replicator.carry_out(effect, int((asked_at + detect / 2) * 1e6))

    async def _ask_arbiter(self, question: do.Claim | do.Disclaim) -> None:
        assert self._config.arbiter is not None
        policy, generation = self.state.policy, question.generation
        where = (self._config.arbiter.etcd, self._config.cluster.name, generation, policy.me)
        timeout = max(policy.detect, ARBITER_LEAST_SECONDS)
        try:
            if isinstance(question, do.Disclaim):
                heir = await arbiter.disclaim(*where, timeout)
            else:
                granted = await arbiter.claim(*where, timeout)
                heir = policy.me if granted else policy.peer
        except arbiter.ArbiterError as err:
            log.warning("the arbiter does not answer: %s", err)
            self.post(on.ArbiterFailed(str(err)))
        else:
            self.post(on.HeirTold(generation, heir))

    def _keep(self, maintenance: Maintenance) -> None:
        word = "on: nothing moves by itself" if maintenance.on else "off"
        log.info("maintenance is %s", word)
        try:
            memory.remember(maintenance)
        except OSError as err:
            log.error("maintenance will be forgotten at the next start: %s", err)

    def _answer_gate(self, refusal: str | None) -> None:
        for wait in self._gate_waits:
            if wait.done():
                continue
            if refusal is None:
                wait.set_result(None)
            else:
                wait.set_exception(Refused(refusal))
        self._gate_waits.clear()

    async def _publish_latest(self) -> None:
        while True:
            await self._to_publish.wait()
            self._to_publish.clear()
            if self._publication is None or self._endpoint.bus is None:
                continue  # `_connected` repeats this
            try:
                self._published_at = time.monotonic()
                await self._heartbeat.publish(self._publication)
            except (DBusError, ConnectionError) as err:
                # The heartbeat daemon restarts; `_heartbeat_returned` repeats this.
                log.info("not published yet: %s", err)

    # -- verbs of the D-Bus interface

    async def swap(self) -> None:
        await self._ask(on.SwapCommanded())

    async def promote(self, force: bool) -> None:
        await self._ask(on.PromoteCommanded(force))

    async def set_maintenance(self, on_: bool) -> None:
        await self._ask(on.MaintenanceCommanded(on_))

    async def yield_branch(self) -> None:
        await self._ask(on.YieldCommanded())

    async def start(self) -> None:
        await self._of_systemd(self._units.start_cluster())

    async def stop(self) -> None:
        await self._of_systemd(self._units.stop_cluster())

    async def verify(self, repair: bool) -> None:
        """Raises Refused anywhere but on a primary with an up-to-date standby."""
        if self.state.role is not Role.PRIMARY:
            raise Refused(f"verify runs on the primary: {self._who_is_primary()}")
        try:
            await self._replicator.verify(repair)
        except DBusError as err:
            raise Refused(err.text) from err
        except ConnectionError as err:
            raise Refused("the system bus is not there at the moment") from err
        self._announce(shown(self.state))

    def _who_is_primary(self) -> str:
        peer = self.state.policy.peer
        if peer_state(self.state) in ("PRIM", "ALONE"):
            return f"ask {peer}"
        return f"this node is not primary, and {peer} does not say that it is"

    async def _of_systemd(self, request: Coroutine[Any, Any, None]) -> None:
        try:
            await request
        except SystemdError as err:
            raise Refused(str(err)) from err

    async def open_gate(self) -> None:
        wait: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gate_waits.append(wait)
        self.post(on.PromotionAsked())
        await wait

    async def _ask(self, event: on.Event) -> None:
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._inputs.put_nowait(_Input(event, answer))
        await answer

    async def _require(self, verb: str) -> None:
        await require(self._endpoint.bus, verb)

    # -- what others see

    def _units_changed(self) -> None:
        self._announce(shown(self.state))

    def _status_line(self) -> str:
        return f"{_in_words(shown(self.state))}: {self.state.reason}"

    def _announce(self, before: tuple[str, str]) -> None:
        state, now = self.state, shown(self.state)
        links = self._heartbeat.levels.get("Links", {})
        directories = self._replicator.levels.get("Directories", "")
        verification = self._replicator.levels.get("Verification", "")
        yielded = self._replicator.levels.get("Yielded", "")
        document = report(
            self._config, state, links, directories, verification, yielded, self._units.states
        )
        self._cluster.announce(document_levels(document))
        self._parts.announce(document)
        if now == before:
            return
        log.info("%s -> %s: %s", _in_words(before), _in_words(now), state.reason)
        self._cluster.Transitioned(str(before[0]), str(now[0]), state.reason)
        notify.status(self._status_line())


def _in_words(state: tuple[str, str]) -> str:
    name, transition = state
    return transition or name


def document_levels(document: dict[str, Any]) -> dict[str, object]:
    """The properties of `org.haoperator1.Cluster` from the report."""
    return {
        "State": document["state"],
        "Transition": document["transition"],
        "Role": document["role"],
        "NodeName": document["node"],
        "PeerName": document["peer"]["name"],
        "PeerState": document["peer"]["state"],
        "PeerReachable": document["peer"]["reachable"],
        "Generation": document["generation"],
        "Reason": document["reason"],
        "Report": json.dumps(document),
    }
