"""A gateway's stream in lockstep: one tick at a time, and whoever is started again goes on where it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from dtms.v1 import gateway_service_pb2 as pb
from dtms_service.errors import invalid
from dtms_service.lockstep_run import LockstepRun
from dtms_service.system import System


class LockstepStream:
    """Answers are handed on at once; all else is worked on in order. The run itself outlives the stream."""

    def __init__(self, system: System, run: LockstepRun, hello: pb.GatewayHello) -> None:
        self._system, self._run, self._hello = system, run, hello
        self.outgoing: asyncio.Queue[pb.AttachResponse | BaseException | None] = asyncio.Queue()

    async def serve(self, requests: AsyncIterator[pb.AttachRequest]) -> None:
        """Until the history has ended, or another stream of the same gateway takes over."""
        try:
            await self._serve(requests)
            await self.outgoing.put(None)
        except BaseException as error:  # a panic of the core too: the stream raises it
            if isinstance(error, asyncio.CancelledError):
                raise
            await self.outgoing.put(error)

    async def _serve(self, requests: AsyncIterator[pb.AttachRequest]) -> None:
        place = self._run.place(self._hello.account_id, self._hello.run_id)
        told = pb.RunPlace(
            done=place.done,
            under_way=place.under_way,
            recall=place.recall,
            fresh=place.fresh,
            ended=place.ended,
        )
        await self.outgoing.put(pb.AttachResponse(place=told))
        inbox: asyncio.Queue[pb.AttachRequest] = asyncio.Queue()
        at_work = [asyncio.create_task(self._read(requests, inbox)), asyncio.create_task(self._work(inbox))]
        try:
            await asyncio.wait(at_work, return_when=asyncio.FIRST_COMPLETED)
            for task in at_work:
                if task.done():
                    task.result()
        finally:
            for task in at_work:
                task.cancel()

    def lost(self, why: str) -> None:
        """The stream has ended: who waits for the gateway goes on waiting."""
        self._system.gateways.detached(self._hello.account_id, why, expected=True)

    async def _read(self, requests: AsyncIterator[pb.AttachRequest], inbox: asyncio.Queue[pb.AttachRequest]) -> None:
        async for request in requests:
            if request.WhichOneof("message") not in ("command_result", "query_result"):
                inbox.put_nowait(request)
            elif self._run.door is None:
                raise invalid("message", "an answer before anything was asked")
            else:
                self._run.door.handle(request)

    async def _work(self, inbox: asyncio.Queue[pb.AttachRequest]) -> None:
        run, account_id, recalled = self._run, self._hello.account_id, 0
        while True:
            request = await inbox.get()
            match request.WhichOneof("message"):
                case "recall":
                    run.recall(recalled, request.recall.symbol, request.recall.ticks)
                    recalled += len(request.recall.ticks)
                case "ready":
                    await run.ready(self.outgoing.put, [spec.symbol for spec in self._hello.symbols])
                    self._system.gateways.attached(account_id)
                    revision = self._system.desk.engine.revision
                    await self.outgoing.put(pb.AttachResponse(attached_at_revision=revision))
                case "ticks":
                    await self._take(request.ticks)
                    await self.outgoing.put(pb.AttachResponse(ticks_done=request.ticks.seq))
                case "end":
                    run.end()
                    return
                case other:
                    raise invalid("message", f"a gateway in lockstep says no {other}")

    async def _take(self, ticks: pb.GatewayTicks) -> None:
        if len(ticks.ticks) != 1:
            raise invalid("ticks", f"one at a time in lockstep, not {len(ticks.ticks)}")
        equity = ticks.equity if ticks.HasField("equity") else None
        await self._run.tick(ticks.seq, ticks.symbol, ticks.ticks[0], ticks.change_count, equity)
