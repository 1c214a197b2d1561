"""The service's part on the wire, for the tests of the gateway: a real server, nothing decided, everything noted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from dtms.v1 import (
    gateway_service_pb2,
    market_data_service_pb2,
    registry_service_pb2,
    trade_status_service_pb2,
)
from dtms_service.gateway_door import GatewayDoor

GATEWAY_TOKEN = "gateway-token"
TRADER_TOKEN = "trader-token"
REVISION = 41

Turn = Callable[["Peer", gateway_service_pb2.GatewayTicks], Awaitable[None]]


async def nothing(peer: Peer, ticks: gateway_service_pb2.GatewayTicks) -> None:
    """What follows from most ticks."""


@dataclass(slots=True)
class Peer:
    """``turn`` is what follows from a message of ticks; ``before_attached`` what the service does with a new door.

    ``answers`` gets, for each answer, whether somebody still waited for it.
    """

    turn: Turn = nothing
    before_attached: Callable[[GatewayDoor], Awaitable[None]] | None = None
    deadline_s: float = 5.0
    refuse_with: grpc.StatusCode | None = None
    address: str = ""
    hello: gateway_service_pb2.GatewayHello | None = None
    ticks: list[gateway_service_pb2.GatewayTicks] = field(default_factory=list)
    told: list[gateway_service_pb2.AttachRequest] = field(default_factory=list)
    registered: list[registry_service_pb2.Registration] = field(default_factory=list)
    held_at_registration: list[list[int]] = field(default_factory=list)
    answers: asyncio.Queue[bool] = field(default_factory=asyncio.Queue)
    doors: asyncio.Queue[GatewayDoor] = field(default_factory=asyncio.Queue)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    door: GatewayDoor | None = None
    abort: asyncio.Event = field(default_factory=asyncio.Event)
    # Where a run in lockstep stands when its gateway says hello.
    place: gateway_service_pb2.RunPlace = field(default_factory=lambda: gateway_service_pb2.RunPlace(fresh=True))
    recalled: list[market_data_service_pb2.Tick] = field(default_factory=list)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    overlaps: int = 0
    _busy: bool = False

    async def attach(
        self,
        requests: AsyncIterator[gateway_service_pb2.AttachRequest],
        context: grpc.aio.ServicerContext[gateway_service_pb2.AttachRequest, gateway_service_pb2.AttachResponse],
    ) -> None:
        await demand(context, GATEWAY_TOKEN)
        if self.refuse_with is not None:
            await context.abort(self.refuse_with, "not you")
        self.hello = (await anext(requests)).hello
        outgoing: asyncio.Queue[gateway_service_pb2.AttachResponse] = asyncio.Queue()
        door = self.door = GatewayDoor(outgoing.put, deadline_s=self.deadline_s)
        writer = asyncio.create_task(self._write(outgoing, context))
        reader = asyncio.create_task(self._read(requests, door, outgoing))
        aborted = asyncio.create_task(self.abort.wait())
        try:
            if self.hello.lockstep:
                await outgoing.put(gateway_service_pb2.AttachResponse(place=self.place))
                await self.ready.wait()
            if self.before_attached is not None:
                await self.before_attached(door)
            await outgoing.put(gateway_service_pb2.AttachResponse(attached_at_revision=REVISION))
            await self.doors.put(door)
            await asyncio.wait({reader, writer, aborted}, return_when=asyncio.FIRST_COMPLETED)
            if aborted.done():
                await context.abort(grpc.StatusCode.UNAVAILABLE, "draining")
            if reader.done():
                await reader
        finally:
            for task in (reader, writer, aborted):
                task.cancel()
            door.lost("the gateway's stream ended")

    async def _read(
        self,
        requests: AsyncIterator[gateway_service_pb2.AttachRequest],
        door: GatewayDoor,
        outgoing: asyncio.Queue[gateway_service_pb2.AttachResponse],
    ) -> None:
        turns: set[asyncio.Task[None]] = set()
        async for request in requests:
            if request.HasField("ticks"):
                self.overlaps += self._busy
                self._busy = True
                self.ticks.append(request.ticks)
                turns.add(asyncio.create_task(self._take_turn(request.ticks, outgoing)))
            elif request.HasField("ready"):
                self.ready.set()
            elif request.HasField("recall"):
                self.recalled += request.recall.ticks
            elif request.HasField("end"):
                self.ended.set()
                return
            elif request.WhichOneof("message") in ("positions", "terminal", "account"):
                self.told.append(request)
            else:
                self.answers.put_nowait(door.handle(request))

    async def _take_turn(
        self, ticks: gateway_service_pb2.GatewayTicks, outgoing: asyncio.Queue[gateway_service_pb2.AttachResponse]
    ) -> None:
        await self.turn(self, ticks)
        self._busy = False
        await outgoing.put(gateway_service_pb2.AttachResponse(ticks_done=ticks.seq))

    @staticmethod
    async def _write(
        outgoing: asyncio.Queue[gateway_service_pb2.AttachResponse],
        context: grpc.aio.ServicerContext[gateway_service_pb2.AttachRequest, gateway_service_pb2.AttachResponse],
    ) -> None:
        while True:
            await context.write(await outgoing.get())

    async def register(
        self,
        request: registry_service_pb2.RegisterTradeRequest,
        context: grpc.aio.ServicerContext[
            registry_service_pb2.RegisterTradeRequest, registry_service_pb2.RegisterTradeResponse
        ],
    ) -> registry_service_pb2.RegisterTradeResponse:
        """Asks the gateway for its positions before it answers, as a service does that checks what it registers."""
        await demand(context, TRADER_TOKEN)
        assert self.door is not None
        held = await self.door.positions(request.registration.account_id)
        self.registered.append(request.registration)
        self.held_at_registration.append([position.ticket for position in held])
        return registry_service_pb2.RegisterTradeResponse(created=True)

    async def score(
        self,
        _: trade_status_service_pb2.GetScoreRequest,
        context: grpc.aio.ServicerContext[
            trade_status_service_pb2.GetScoreRequest, trade_status_service_pb2.GetScoreResponse
        ],
    ) -> trade_status_service_pb2.GetScoreResponse:
        await demand(context, TRADER_TOKEN)
        answer = trade_status_service_pb2.GetScoreResponse()
        answer.score.total, answer.score.structure, answer.score.vwap_volume = 1.5, 1.0, 0.5
        return answer

    def handlers(self) -> tuple[grpc.GenericRpcHandler, ...]:
        """The three methods of the service that a gateway and its entry bot call."""
        attach = grpc.stream_stream_rpc_method_handler(
            self.attach,
            request_deserializer=gateway_service_pb2.AttachRequest.FromString,
            response_serializer=gateway_service_pb2.AttachResponse.SerializeToString,
        )
        register = grpc.unary_unary_rpc_method_handler(
            self.register,
            request_deserializer=registry_service_pb2.RegisterTradeRequest.FromString,
            response_serializer=registry_service_pb2.RegisterTradeResponse.SerializeToString,
        )
        score = grpc.unary_unary_rpc_method_handler(
            self.score,
            request_deserializer=trade_status_service_pb2.GetScoreRequest.FromString,
            response_serializer=trade_status_service_pb2.GetScoreResponse.SerializeToString,
        )
        return (
            grpc.method_handlers_generic_handler("dtms.v1.GatewayService", {"Attach": attach}),
            grpc.method_handlers_generic_handler("dtms.v1.RegistryService", {"RegisterTrade": register}),
            grpc.method_handlers_generic_handler("dtms.v1.TradeStatusService", {"GetScore": score}),
        )


async def demand(context: grpc.aio.ServicerContext[Any, Any], token: str) -> None:
    """The call must carry this credential."""
    if ("authorization", f"Bearer {token}") not in tuple(context.invocation_metadata() or ()):
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "another credential was expected")


@asynccontextmanager
async def serving(peer: Peer) -> AsyncIterator[Peer]:
    """The peer on a port of its own."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(peer.handlers())
    peer.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        yield peer
    finally:
        await server.stop(None)


def token_files(folder: Path) -> tuple[Path, Path]:
    """Files with the credentials of gateway and trader."""
    files = folder / "gateway.token", folder / "trader.token"
    for file, token in zip(files, (GATEWAY_TOKEN, TRADER_TOKEN), strict=True):
        file.write_text(token, encoding="ascii")
    return files
