"""The service's end of a gateway stream under pressure: what may wait for what, and what must not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest

from dtms.v1 import gateway_service_pb2 as pb
from dtms.v1.gateway_service_pb2_grpc import GatewayServiceStub
from dtms.v1.market_data_service_pb2 import Tick
from dtms_client.errors import PermissionDenied, from_rpc
from dtms_service import gateway_messages as messages
from dtms_service.broker.paper_door import PaperDoor
from dtms_service.server import Server
from dtms_service.service import credentials_of
from dtms_service.settings import configuration
from dtms_service.system import System
from tests.stack import Stack
from tests.unit.paper_world import CONFIG, SPEC, World

ACCOUNT = CONFIG.account_id
MESSAGES = 1_500  # more than may wait one by one


@asynccontextmanager
async def stack(data_dir: Path, settings: dict[str, object] | None = None) -> AsyncIterator[Stack]:
    config = configuration(None, paper=False, given={"data_dir": data_dir, "server.port": 0, **(settings or {})})
    system = await System.open(config, None)
    server = await Server.start(system, config, credentials_of(config))
    async with AsyncExitStack() as exits:
        exits.push_async_callback(server.stop)
        yield Stack(config, system, server, exits)


class Rough:
    """A gateway that keeps to no manners: it sends what it likes, and holds back answers."""

    def __init__(self, call: grpc.aio.StreamStreamCall[pb.AttachRequest, pb.AttachResponse], world: World) -> None:
        self.call, self.door = call, PaperDoor({ACCOUNT: world.broker})
        self.held: list[pb.GatewayQuery] = []
        self.holds = False
        self.asked = asyncio.Event()
        self.attached = asyncio.Event()
        self.done = 0
        self._news = asyncio.Condition()
        self._write_turn = asyncio.Lock()

    async def run(self) -> None:
        hello = pb.GatewayHello(account_id=ACCOUNT, symbols=[messages.symbol_to_wire(SPEC)])
        await self._write(pb.AttachRequest(hello=hello))
        async for message in self.call:
            match message.WhichOneof("message"):
                case "query" if self.holds:
                    self.held.append(message.query)
                    self.asked.set()
                case "query":
                    await self.answer(message.query)
                case "attached_at_revision":
                    self.attached.set()
                case "ticks_done":
                    assert message.ticks_done > self.done
                    async with self._news:
                        self.done = message.ticks_done
                        self._news.notify_all()
                case unknown:
                    raise AssertionError(f"nobody sends {unknown} here")

    async def until_done(self, seq: int) -> None:
        """Once the service says that it has worked on this message and all before."""
        async with self._news:
            await self._news.wait_for(lambda: self.done >= seq)

    async def answer(self, query: pb.GatewayQuery) -> None:
        result = pb.QueryResult(call_id=query.call_id)
        match query.kind:
            case pb.QUERY_KIND_ACCOUNT:
                result.account.CopyFrom(messages.account_to_wire(await self.door.account(ACCOUNT)))
            case pb.QUERY_KIND_SYMBOL:
                result.spec.CopyFrom(messages.symbol_to_wire(SPEC))
                result.profit_currency = SPEC.currency_profit
            case pb.QUERY_KIND_POSITIONS:
                held = await self.door.positions(ACCOUNT)
                result.positions.extend(map(messages.position_to_wire, held))
            case _:  # no deals, no bars
                pass
        await self._write(pb.AttachRequest(query_result=result))

    async def tick(self, seq: int, change_count: int = 0) -> None:
        tick = Tick(time_msc=1_700_000_000_000 + seq, bid=1.1, ask=1.1001, volume=1)
        message = pb.GatewayTicks(seq=seq, symbol=SPEC.name, ticks=[tick], change_count=change_count)
        await self._write(pb.AttachRequest(ticks=message))

    async def _write(self, message: pb.AttachRequest) -> None:
        async with self._write_turn:
            await self.call.write(message)


@asynccontextmanager
async def rough(here: Stack) -> AsyncIterator[Rough]:
    client = await here.client("gateway")
    call = GatewayServiceStub(client.channel).Attach(metadata=client.metadata)
    gateway = Rough(call, World())
    running = asyncio.create_task(gateway.run())
    try:
        await gateway.attached.wait()
        yield gateway
    finally:
        call.cancel()
        await asyncio.wait([running])


async def test_an_answer_never_waits_behind_prices(tmp_path: Path) -> None:
    """While a price of the account is being worked on, and more of them wait than there is room for, a question is
    answered at once; what was merged is shown, and every message of prices is told done."""
    async with stack(tmp_path) as here, rough(here) as gateway:
        async with here.system.monitor._turns[ACCOUNT]:
            for seq in range(1, MESSAGES + 1):
                await gateway.tick(seq)
            assert await asyncio.wait_for(here.system.doors.of(ACCOUNT).positions(ACCOUNT), 5) == []
            assert gateway.done == 0
        await gateway.until_done(MESSAGES)
        (shown,) = (await (await here.client("viewer")).system_status()).gateways
        assert 0 < shown.ticks_merged < MESSAGES


async def test_prices_do_not_wait_for_a_question_that_the_terminal_keeps(tmp_path: Path) -> None:
    """A terminal that holds an order answers no question: the prices that come are decided on all the same, and when it
    answers the positions are compared."""
    async with stack(tmp_path) as here, rough(here) as gateway:
        await gateway.tick(1)
        await gateway.until_done(1)
        gateway.holds = True
        await gateway.tick(2, change_count=7)
        await gateway.asked.wait()
        for seq in range(3, 6):
            await gateway.tick(seq, change_count=7)
        await gateway.until_done(5)
        kinds = {query.kind for query in gateway.held}
        assert pb.QUERY_KIND_POSITIONS in kinds
        assert here.system.monitor.tick_to_decision.figures().count == 5
        gateway.holds = False
        for query in gateway.held:
            await gateway.answer(query)
        await gateway.tick(6, change_count=7)
        await gateway.until_done(6)


async def test_a_supervised_account_takes_its_own_gateway_only(tmp_path: Path) -> None:
    """The credential of a supervised gateway opens its account and no other; the general one does not open it."""
    section = {"broker": "mt5", "symbols": ["EURUSD"], "package": "json"}
    async with stack(tmp_path, {"gateways": {ACCOUNT: section}}) as here:
        for name, account_id, said in (
            ("gateway", ACCOUNT, "supervises the gateway of 7001@Paper itself"),
            ("gateway_7001_paper", "7002@Paper", "is the gateway of 7001@Paper, not of 7002@Paper"),
        ):
            client = await here.client(name)
            call = GatewayServiceStub(client.channel).Attach(metadata=client.metadata)
            await call.write(pb.AttachRequest(hello=pb.GatewayHello(account_id=account_id)))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call.read()
            error = from_rpc(refused.value, method="Attach")
            assert isinstance(error, PermissionDenied)
            assert said in str(error)
