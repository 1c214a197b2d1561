"""GatewayService: a gateway's stream is the broker door of its account."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from dtms.v1 import gateway_service_pb2 as pb
from dtms_service.errors import invalid
from dtms_service.gateway_door import GatewayDoor
from dtms_service.interceptors import Call
from dtms_service.servicers.paging import require
from dtms_service.system import System

MAX_UNSENT = 1024  # messages to one gateway waiting for its stream: more means that it does not read


@dataclass(frozen=True, slots=True)
class GatewayServicer:
    system: System

    async def Attach(self, requests: AsyncIterator[pb.AttachRequest], _call: Call) -> AsyncIterator[pb.AttachResponse]:
        hello = (await anext(requests)).hello
        require("hello.account_id", hello.account_id)
        if hello.lockstep != (self.system.lockstep is not None):
            raise invalid("hello.lockstep", "the gateway and the service must both run in lockstep, or neither")
        outgoing: asyncio.Queue[pb.AttachResponse | BaseException | None] = asyncio.Queue(MAX_UNSENT)
        door = GatewayDoor(outgoing.put)
        reader = asyncio.create_task(self._serve(hello, requests, door, outgoing))
        try:
            while (message := await outgoing.get()) is not None:
                if isinstance(message, BaseException):
                    raise message
                yield message
        finally:
            reader.cancel()
            door.lost("the gateway's stream ended")
            self.system.detach(hello.account_id, door)

    async def _serve(
        self,
        hello: pb.GatewayHello,
        requests: AsyncIterator[pb.AttachRequest],
        door: GatewayDoor,
        outgoing: asyncio.Queue[pb.AttachResponse | BaseException | None],
    ) -> None:
        """Reads the stream; prices and the attachment are worked on beside it, because they ask the gateway in turn."""
        prices: asyncio.Queue[pb.GatewayTicks | None] = asyncio.Queue(MAX_UNSENT)
        work = asyncio.create_task(self._work(hello, door, prices, outgoing))
        try:
            async for request in requests:
                if request.HasField("ticks"):
                    await prices.put(request.ticks)
                elif request.HasField("end"):
                    await prices.put(None)
                else:
                    door.handle(request)
            await prices.put(None)
            await work
        finally:
            work.cancel()

    async def _work(
        self,
        hello: pb.GatewayHello,
        door: GatewayDoor,
        prices: asyncio.Queue[pb.GatewayTicks | None],
        outgoing: asyncio.Queue[pb.AttachResponse | BaseException | None],
    ) -> None:
        try:
            await self.system.attach(hello.account_id, door, [spec.symbol for spec in hello.symbols])
            if self.system.lockstep is not None:
                await self.system.lockstep.complete.wait()
            await outgoing.put(pb.AttachResponse(attached_at_revision=self.system.desk.engine.revision))
            while (ticks := await prices.get()) is not None:
                for left, tick in zip(range(len(ticks.ticks) - 1, -1, -1), ticks.ticks, strict=True):
                    equity = ticks.equity if not left and ticks.HasField("equity") else None
                    await self.system.monitor.tick(hello.account_id, ticks.symbol, tick, ticks.change_count, equity)
                await outgoing.put(pb.AttachResponse(ticks_done=ticks.seq))
            if self.system.lockstep is not None:
                await self.system.lockstep.end()
            await outgoing.put(None)
        except BaseException as error:  # handed to the stream, where it becomes a status (a panic is no Exception)
            if isinstance(error, asyncio.CancelledError):
                raise
            await outgoing.put(error)
