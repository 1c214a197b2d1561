"""A whole service in the test's own loop: real server on port 0, embedded paper account, real clients."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc.aio
from google.protobuf.message import Message

from dtms.v1 import (
    action_pb2,
    arbitration_service_pb2,
    event_pb2,
    market_data_service_pb2,
    paper_service_pb2,
    registry_service_pb2,
    score_pb2,
    trade_pb2,
    trade_status_service_pb2,
)
from dtms_client import AsyncClient
from dtms_service.broker.faults import Faults
from dtms_service.config import Config
from dtms_service.credentials import CREDENTIALS_FOLDER, token_path
from dtms_service.server import Server
from dtms_service.service import credentials_of, paper_account
from dtms_service.settings import configuration
from dtms_service.system import System
from tests import wire
from tests.grpc.watching import events_until

SYMBOL = "EURUSD"
POINT = 0.00001
T0_MSC = 1_700_000_000_000 - 1_700_000_000_000 % 900_000  # a quarter of an hour begins
DONE = 10009
SLOW_S = 900
WARM_BARS = 40  # more than any indicator behind ATR and the regime needs

EXIT_MANAGER = "intelligent_exit_manager"
UNIVERSAL = "universal_sl_tp_manager"
DTMS = "dtms_manager"

_request_ids = itertools.count(1)


@dataclass(slots=True)
class Stack:
    """``server`` runs with ``system``; clients are made per identity and closed with the stack."""

    config: Config
    system: System
    server: Server
    exits: AsyncExitStack
    now_msc: int = T0_MSC
    bid: float = 0.0
    _clients: dict[str, AsyncClient] = field(default_factory=dict)

    def token(self, name: str) -> Path:
        return token_path(self.config.data_dir / CREDENTIALS_FOLDER, name)

    @property
    def faults(self) -> Faults:
        """Switches of what can go wrong between the service and its broker."""
        assert self.system.paper is not None
        return self.system.paper.broker.faults

    async def client(self, name: str) -> AsyncClient:
        """The one client of an identity."""
        if name not in self._clients:
            client = AsyncClient(self.server.address, token_file=self.token(name))
            self._clients[name] = await self.exits.enter_async_context(client)
        return self._clients[name]

    async def call(self, caller: str, request: Message, *, timeout_s: float | None = 5.0) -> Any:
        """The unary method that takes this request, as ``caller``. Raises the client's errors."""
        client = await self.client(caller)
        return await wire.call(client.channel, request, metadata=client.metadata, timeout_s=timeout_s)

    async def stream(self, caller: str, request: Message) -> grpc.aio.UnaryStreamCall[Any, Any]:
        """The server-streaming method that takes this request, as ``caller``; cancelled with the stack."""
        client = await self.client(caller)
        call = wire.stream(client.channel, request, metadata=client.metadata)
        self.exits.callback(call.cancel)
        return call

    # ---- market

    async def tick(self, bid: float, ask: float | None = None, *, after_ms: int = 1000, symbol: str = SYMBOL) -> None:
        """One price through StreamTicks, awaited until all that follows is done."""
        self.now_msc += after_ms
        self.bid = bid
        tick = market_data_service_pb2.Tick(
            time_msc=self.now_msc, bid=bid, ask=ask if ask is not None else bid + 0.0001
        )
        await self.feed(market_data_service_pb2.StreamTicksRequest(symbol=symbol, ticks=[tick]))
        await self.system.executor.idle()

    async def feed(self, *requests: Message) -> list[Any]:
        """A whole stream of ticks or bars and its answers. Raises the client's errors."""
        client = await self.client("feed")
        return await wire.exchange(client.channel, requests, metadata=client.metadata)

    async def warm_up(self, *, base: float = 1.1, symbol: str = SYMBOL, half_range: float = 0.0005) -> None:
        """Closed slow bars up to now: ATR is twice ``half_range``, no trend, no break of structure."""
        start = T0_MSC // 1000 - WARM_BARS * SLOW_S
        bars = [
            market_data_service_pb2.Bar(
                time_s=start + index * SLOW_S,
                open=base,
                high=base + half_range,
                low=base - half_range,
                close=base,
                volume=100,
            )
            for index in range(WARM_BARS)
        ]
        await self.feed(market_data_service_pb2.StreamBarsRequest(symbol=symbol, timeframe_s=SLOW_S, bars=bars))

    async def report_score(self, total: float, *, symbol: str = SYMBOL, valid_ms: int = 3_600_000) -> int:
        """An outside score for a BUY; what follows from it is done on return."""
        request = market_data_service_pb2.ReportScoreRequest(
            symbol=symbol, score=score_pb2.Score(total=total), valid_ms=valid_ms
        )
        revision: int = (await self.call("feed", request)).revision
        await self.system.executor.idle()
        return revision

    # ---- trades

    async def open_position(
        self,
        side: trade_pb2.Side.ValueType = trade_pb2.SIDE_BUY,
        volume: float = 1.0,
        *,
        symbol: str = SYMBOL,
        **levels: Any,
    ) -> registry_service_pb2.Registration:
        """A position at the paper broker, by hand; the registration that fits it."""
        request = paper_service_pb2.OpenPositionRequest(symbol=symbol, side=side, volume=volume, **levels)
        answer = await self.call("feed", request)
        assert answer.retcode == DONE, answer
        held = answer.position
        registration = registry_service_pb2.Registration(
            ticket=held.ticket,
            symbol=symbol,
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

    async def trade(
        self,
        side: trade_pb2.Side.ValueType = trade_pb2.SIDE_BUY,
        volume: float = 1.0,
        *,
        strategy_type: str = "",
        **levels: Any,
    ) -> trade_pb2.Trade:
        """A registered position: a BUY at 1.1001 with stop 1.0951 and target 1.1101 unless said otherwise."""
        if not self.bid:
            await self.tick(1.1)
        if not levels:
            sign = 1 if side == trade_pb2.SIDE_BUY else -1
            levels = {"sl": round(1.1001 - sign * 0.005, 5), "tp": round(1.1001 + sign * 0.01, 5)}
        registration = await self.open_position(side, volume, **levels)
        registration.strategy_type = strategy_type
        feed = await self.client("feed")
        return (await feed.register_trade(registration)).trade

    async def get_trade(self, ticket: int) -> trade_pb2.Trade:
        return await (await self.client("viewer")).get_trade(ticket)

    async def propose(
        self,
        trade: trade_pb2.Trade,
        action: action_pb2.Action,
        *,
        manager: str = EXIT_MANAGER,
        request_id: str = "",
        owner_epoch: int | None = None,
        dry_run: bool = False,
        timeout_s: float | None = None,
    ) -> arbitration_service_pb2.ProposeResponse:
        """A proposal under the epoch of ``trade`` and, unless given, a key of its own."""
        return await (await self.client(manager)).propose(
            request_id=request_id or f"request {next(_request_ids)}",
            ticket=trade.ticket,
            owner_epoch=trade.owner_epoch if owner_epoch is None else owner_epoch,
            action=action,
            dry_run=dry_run,
            timeout_s=timeout_s,
        )

    async def marked(self) -> None:
        """The account's day and hour have their marks: losses count, and no more marks come by themselves."""
        watch = await self.stream("viewer", trade_status_service_pb2.WatchRequest(start_revision=1))
        await events_until(watch, lambda event: event.account_marked.span == event_pb2.SPAN_HOUR)

    def held(self) -> dict[int, tuple[float, float | None, float | None]]:
        """Volume, stop and target by ticket, as the broker itself has them."""
        assert self.system.paper is not None
        return {p.ticket: (p.volume, p.sl, p.tp) for p in self.system.paper.broker.positions()}


def stop_at(
    price: float, purpose: action_pb2.Purpose.ValueType = action_pb2.PURPOSE_OTHER, **more: Any
) -> action_pb2.Action:
    return action_pb2.Action(kind=action_pb2.ACTION_KIND_STOP, purpose=purpose, stop=price, **more)


def target_at(price: float) -> action_pb2.Action:
    return action_pb2.Action(kind=action_pb2.ACTION_KIND_TARGET, purpose=action_pb2.PURPOSE_OTHER, target=price)


def part_of(volume: float) -> action_pb2.Action:
    return action_pb2.Action(
        kind=action_pb2.ACTION_KIND_PARTIAL_CLOSE, purpose=action_pb2.PURPOSE_PARTIAL, volume=volume
    )


def close_all() -> action_pb2.Action:
    return action_pb2.Action(kind=action_pb2.ACTION_KIND_CLOSE, purpose=action_pb2.PURPOSE_FLATTEN)


@asynccontextmanager
async def running(
    data_dir: Path, settings: Mapping[str, object] | None = None, *, attach: bool = True
) -> AsyncIterator[Stack]:
    """A service with the play-money account on ``data_dir``; what it left there before is recovered.

    Without ``attach`` it stays in recovery: its broker has not answered yet.
    """
    given = {"data_dir": data_dir, "server.port": 0, **(settings or {})}
    config = configuration(None, paper=True, given=given)
    system = await System.open(config, None)
    assert config.paper is not None
    system.paper = paper_account(config, config.paper)
    server = await Server.start(system, config, credentials_of(config))
    async with AsyncExitStack() as exits:
        exits.push_async_callback(server.stop)
        if attach:
            await attach_paper(system)
        yield Stack(config, system, server, exits)


async def attach_paper(system: System) -> None:
    """The broker answers: recovery can end."""
    assert system.paper is not None
    await system.attach(system.paper.account_id, system.paper, list(system.paper.broker.symbols))
