"""A whole service in the test's own loop: real server on port 0, embedded paper account, real clients."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from dtms.v1 import market_data_service_pb2, market_data_service_pb2_grpc, paper_service_pb2, paper_service_pb2_grpc
from dtms.v1 import registry_service_pb2, trade_pb2
from dtms_client import AsyncClient
from dtms_service.config import Config
from dtms_service.credentials import token_path
from dtms_service.server import Server
from dtms_service.service import CREDENTIALS_FOLDER, credentials_of, paper_account
from dtms_service.settings import configuration
from dtms_service.system import System

SYMBOL = "EURUSD"
T0_MSC = 1_700_000_000_000 - 1_700_000_000_000 % 900_000  # a quarter of an hour begins
DONE = 10009


@dataclass(slots=True)
class Stack:
    """``server`` runs with ``system``; clients are made per identity and closed with the stack."""

    config: Config
    system: System
    server: Server
    exits: AsyncExitStack
    now_msc: int = T0_MSC

    def token(self, name: str) -> Path:
        return token_path(self.config.data_dir / CREDENTIALS_FOLDER, name)

    async def client(self, name: str) -> AsyncClient:
        return await self.exits.enter_async_context(AsyncClient(self.server.address, token_file=self.token(name)))

    async def tick(self, bid: float, ask: float | None = None, *, after_ms: int = 1000, symbol: str = SYMBOL) -> None:
        """One price through StreamTicks, awaited until all that follows is done."""
        feed = await self.client("feed")
        self.now_msc += after_ms
        tick = market_data_service_pb2.Tick(time_msc=self.now_msc, bid=bid, ask=ask if ask is not None else bid + 0.0001)
        stub = market_data_service_pb2_grpc.MarketDataServiceStub(feed.channel)
        call = stub.StreamTicks(metadata=feed.metadata)
        await call.write(market_data_service_pb2.StreamTicksRequest(symbol=symbol, ticks=[tick]))
        await call.read()
        await call.done_writing()

    async def open_position(
        self, side: trade_pb2.Side.ValueType = trade_pb2.SIDE_BUY, volume: float = 1.0, **levels: float
    ) -> registry_service_pb2.Registration:
        """A position at the paper broker, by hand; the registration that fits it."""
        feed = await self.client("feed")
        stub = paper_service_pb2_grpc.PaperServiceStub(feed.channel)
        request = paper_service_pb2.OpenPositionRequest(symbol=SYMBOL, side=side, volume=volume, **levels)
        answer = await stub.OpenPosition(request, metadata=feed.metadata, timeout=5)
        assert answer.retcode == DONE, answer
        held = answer.position
        registration = registry_service_pb2.Registration(
            ticket=held.ticket,
            symbol=SYMBOL,
            side=side,
            entry_price=held.price_open,
            volume=held.volume,
            opened_ns=held.time_msc * 1_000_000,
        )
        if held.HasField("sl"):
            registration.sl = held.sl
        if held.HasField("tp"):
            registration.tp = held.tp
        return registration


@asynccontextmanager
async def running(data_dir: Path, settings: Mapping[str, object] | None = None) -> AsyncIterator[Stack]:
    """A service with the play-money account on ``data_dir``; what it left there before is recovered."""
    given = {"data_dir": data_dir, "server.port": 0, **(settings or {})}
    config = configuration(None, paper=True, given=given)
    system = await System.open(config, None)
    assert config.paper is not None
    system.paper = paper_account(config, config.paper)
    server = await Server.start(system, config, credentials_of(config))
    async with AsyncExitStack() as exits:
        exits.push_async_callback(server.stop)
        await system.attach(system.paper.account_id, system.paper, list(system.paper.broker.symbols))
        yield Stack(config, system, server, exits)
