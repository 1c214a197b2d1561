"""GatewayService: a gateway's stream is the broker door of its account."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from dtms.v1 import gateway_service_pb2 as pb
from dtms_service import gateway_messages as messages
from dtms_service.errors import DtmsError, Reason, invalid
from dtms_service.gateway_door import CALL_DEADLINE_S, GatewayDoor
from dtms_service.gateway_inbox import Inbox, Waiting
from dtms_service.interceptors import Call
from dtms_service.servicers.gateway_in_lockstep import LockstepStream
from dtms_service.servicers.paging import require
from dtms_service.system import System

MAX_UNSENT = 1024  # messages to one gateway waiting for its stream: more means that it does not read
PATIENCE_S = 0.25  # of prices with a question about positions: longer than any terminal takes that is well
LOOK_AGAIN_S = (0.25, 5.0)  # first and longest pause before positions that nothing proves yet are read again

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class GatewayServicer:
    system: System

    async def Attach(self, requests: AsyncIterator[pb.AttachRequest], call: Call) -> AsyncIterator[pb.AttachResponse]:
        hello = (await anext(requests)).hello
        require("hello.account_id", hello.account_id)
        if hello.lockstep != (self.system.lockstep is not None):
            raise invalid("hello.lockstep", "the gateway and the service must both run in lockstep, or neither")
        self._admit(hello.account_id, call)
        run = self.system.run
        stream = _Stream(self.system, hello) if run is None else LockstepStream(self.system, run, hello)
        at_work = asyncio.create_task(stream.serve(requests))
        why = "its stream ended"
        try:
            while (message := await stream.outgoing.get()) is not None:
                if isinstance(message, BaseException):
                    why = f"{type(message).__name__}: {message}"
                    raise message
                yield message
        finally:
            at_work.cancel()
            stream.lost(why)

    def _admit(self, account_id: str, call: Call) -> None:
        """A gateway with a credential of its own is that account's; a supervised account takes no other."""
        bound = call.principal.account_id
        if bound and bound != account_id:
            raise DtmsError(
                Reason.ROLE_FORBIDDEN,
                f"{call.principal.name} is the gateway of {bound}, not of {account_id}",
                metadata={"account_id": bound},
            )
        if account_id in self.system.config.gateways and not bound:
            raise DtmsError(
                Reason.ROLE_FORBIDDEN,
                f"the service supervises the gateway of {account_id} itself",
                metadata={"account_id": account_id},
            )


class _Stream:
    """In real time. What a gateway sends is sorted at once: no answer waits behind a price, and no price behind a
    question for long.

    Prices, positions and the attachment are worked on beside the stream, because they ask the gateway in turn.
    """

    def __init__(self, system: System, hello: pb.GatewayHello) -> None:
        self._system, self._hello, self._account_id = system, hello, hello.account_id
        self._gateways = system.gateways
        section = system.config.gateways.get(hello.account_id)
        self.outgoing: asyncio.Queue[pb.AttachResponse | BaseException | None] = asyncio.Queue(MAX_UNSENT)
        self._door = GatewayDoor(
            self.outgoing.put,
            deadline_s=CALL_DEADLINE_S if section is None else section.deadline_s,
            on_missed=lambda what: self._gateways.missed(self._account_id, what),
        )
        self._inbox = Inbox()
        self._merged = 0
        # In shadow mode the book follows price by price.
        self._apart = system.shadows is None
        self._change_count = -1
        self._changed = asyncio.Event()
        self._compared = asyncio.Event()
        self._compared.set()
        self._attached = False

    def lost(self, why: str) -> None:
        """The stream has ended."""
        self._door.lost(f"the gateway's stream ended ({why})")
        self._system.detach(self._account_id, self._door, why)

    async def serve(self, requests: AsyncIterator[pb.AttachRequest]) -> None:
        """Until the gateway has said everything, or is not listened to any more."""
        at_work = [asyncio.create_task(self._handing_on(self._work()))]
        if self._apart:
            at_work.append(asyncio.create_task(self._handing_on(self._compare())))
        try:
            await self._handing_on(self._read(requests))
            await at_work[0]
        finally:
            for task in at_work:
                task.cancel()

    async def _handing_on(self, work: Awaitable[None]) -> None:
        """An error is handed to the stream, where it becomes a status (a panic is no Exception)."""
        try:
            await work
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError):
                raise
            await self.outgoing.put(error)

    async def _read(self, requests: AsyncIterator[pb.AttachRequest]) -> None:
        async for request in requests:
            match request.WhichOneof("message"):
                case "ticks":
                    self._inbox.put(request.ticks)
                    self._note_change(request.ticks.change_count)
                case "positions":
                    self._door.told(request.positions)
                    self._note_change(request.positions.change_count)
                case "terminal":
                    self._gateways.told(self._account_id, request.terminal)
                case "account":
                    if self._attached and self._apart:
                        self._system.monitor.told(self._account_id, messages.account_from_wire(request.account).equity)
                case "end":
                    self._inbox.end()
                case _:
                    if self._door.handle(request):
                        self._gateways.heard(self._account_id)
        self._inbox.end()

    def _note_change(self, change_count: int) -> None:
        if self._apart and change_count != self._change_count:
            self._change_count = change_count
            self._compared.clear()
            self._changed.set()

    async def _work(self) -> None:
        system = self._system
        await system.attach(self._account_id, self._door, [spec.symbol for spec in self._hello.symbols])
        self._attached = True
        self._gateways.attached(self._account_id)
        await self.outgoing.put(pb.AttachResponse(attached_at_revision=system.desk.engine.revision))
        done_seq = 0
        while (prices := await self._inbox.get()) is not None:
            await self._take(prices)
            if self._inbox.done_seq > done_seq:
                done_seq = self._inbox.done_seq
                await self.outgoing.put(pb.AttachResponse(ticks_done=done_seq))
        await self.outgoing.put(None)

    async def _take(self, prices: Waiting) -> None:
        """Positions are compared first, unless the terminal keeps that waiting: a price is good for a decision only
        now, and what the broker has done meanwhile it refuses or shows later."""
        if not self._compared.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._compared.wait(), PATIENCE_S)
        if self._inbox.merged != self._merged:
            self._note_merged()
        change_count = None if self._apart else prices.change_count
        monitor = self._system.monitor
        for left, tick in zip(range(len(prices.ticks) - 1, -1, -1), prices.ticks, strict=True):
            equity = None if left else prices.equity
            await monitor.tick(self._account_id, prices.symbol, tick, change_count, equity)

    def _note_merged(self) -> None:
        log.warning("ticks_merged", account=self._account_id, ticks=self._inbox.merged - self._merged)
        self._gateways.of(self._account_id).ticks_merged += self._inbox.merged - self._merged
        self._merged = self._inbox.merged

    async def _compare(self) -> None:
        """Compares positions whenever they have changed, and again until everything is proven."""
        pause_s = 0.0
        while True:
            if not pause_s:
                await self._changed.wait()
            elif not self._changed.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), pause_s)
            if self._changed.is_set():
                self._changed.clear()
                pause_s = 0.0
            if not self._attached:
                pause_s = LOOK_AGAIN_S[0]
                continue
            is_proven = await self._system.monitor.changed(self._account_id, self._change_count)
            if not self._changed.is_set():
                self._compared.set()
            pause_s = 0.0 if is_proven else min(max(2 * pause_s, LOOK_AGAIN_S[0]), LOOK_AGAIN_S[1])
