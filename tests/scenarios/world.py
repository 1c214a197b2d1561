"""A service, its broker's log, and clients whose every call is recorded: the ground of each scenario."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from dtms.v1 import trade_pb2
from dtms.v1.market_data_service_pb2 import Bar, StreamBarsRequest, StreamTicksRequest, Tick
from dtms.v1.paper_service_pb2 import OpenPositionRequest
from dtms.v1.registry_service_pb2 import Registration
from dtms.v1.score_pb2 import Score
from dtms_client import AsyncClient
from tests import wire
from tests.checker.evidence import Evidence, read
from tests.checker.guarantees import check
from tests.process.service_process import Process, Service, serve
from tests.scenarios.recorder import RecordedClient, Recorder
from tests.scenarios.told import Told
from tests.stack import SLOW_S, SYMBOL, T0_MSC, WARM_BARS

BROKER_LOG = "broker.jsonl"
TICK_S = 0.1


class World:
    """Made by :func:`world`. The first client of a name is shared."""

    def __init__(self, folder: Path, service: Service, exits: AsyncExitStack) -> None:
        self.folder, self.service, self._exits = folder, service, exits
        self.now_msc = T0_MSC
        self.bid = 1.1
        self.told = Told()
        self._logs: list[Path] = []
        self._programs: list[Process] = []
        self._clients: dict[str, RecordedClient] = {}

    # ---- who takes part

    def log(self, name: str) -> Path:
        """A log of its own for one more client of this name."""
        path = self.folder / f"{len(self._logs)}-{name}.jsonl"
        self._logs.append(path)
        return path

    async def client(self, name: str) -> AsyncClient:
        if name not in self._clients:
            self._clients[name] = await self.another(name)
        return self._clients[name]

    async def another(self, name: str) -> RecordedClient:
        """One more client of this name, over a connection of its own."""
        recorder = self._exits.enter_context(Recorder(self.log(name), name))
        client = RecordedClient(recorder, self.service.address, token_file=self.service.token(name))
        return await self._exits.enter_async_context(client)

    async def program(self, name: str, module: str, *arguments: str) -> Process:
        """A manager as a process of its own, with address and token of ``name``, recorded."""
        process = await Process.start(
            *(str(self.log(name)), name, module, "--address", self.service.address),
            *("--token-file", str(self.service.token(name)), *arguments),
            module="tests.scenarios.recorder",
        )
        self._exits.push_async_callback(process.kill)
        self._programs.append(process)
        return process

    async def exit_manager(self) -> Process:
        """The exit manager, once it knows the trades."""
        return await self._manager("intelligent_exit_manager", "dtms_client.exit_manager")

    async def universal_manager(self) -> Process:
        """The Universal Manager, once it knows the trades."""
        return await self._manager("universal_sl_tp_manager", "dtms_client.universal_manager")

    async def _manager(self, name: str, module: str) -> Process:
        manager = await self.program(name, module)
        await manager.logged("trades listed")
        return manager

    # ---- market and trades

    async def warm_up(self) -> None:
        """ATR(slow) is 0.001 at 1.1, nothing is broken; then one price."""
        feed = await self.client("feed")
        start = (self.now_msc // 1000 // SLOW_S - WARM_BARS) * SLOW_S
        bars = [
            Bar(time_s=start + index * SLOW_S, open=1.1, high=1.1005, low=1.0995, close=1.1, volume=100)
            for index in range(WARM_BARS)
        ]
        request = StreamBarsRequest(symbol=SYMBOL, timeframe_s=SLOW_S, bars=bars)
        await wire.exchange(feed.channel, [request], metadata=feed.metadata)
        await self.tick(1.1)

    async def tick(self, bid: float) -> None:
        """A price a second later; returns when all that follows at once is done."""
        feed = await self.client("feed")
        self.now_msc += 1000
        self.bid = bid
        tick = Tick(time_msc=self.now_msc, bid=bid, ask=round(bid + 0.0001, 5))
        await wire.exchange(feed.channel, [StreamTicksRequest(symbol=SYMBOL, ticks=[tick])], metadata=feed.metadata)

    async def open(
        self, side: trade_pb2.Side.ValueType = trade_pb2.SIDE_BUY, strategy_type: str = ""
    ) -> trade_pb2.Trade:
        """One lot at the price of now, stop 0.005 and target 0.01 away, registered."""
        feed = await self.client("feed")
        sign, price = (1, self.bid + 0.0001) if side == trade_pb2.SIDE_BUY else (-1, self.bid)
        sl, tp = round(price - sign * 0.005, 5), round(price + sign * 0.01, 5)
        request = OpenPositionRequest(symbol=SYMBOL, side=side, volume=1.0, sl=sl, tp=tp)
        held = (await wire.call(feed.channel, request, metadata=feed.metadata, timeout_s=5)).position
        body = Registration(
            ticket=held.ticket,
            symbol=SYMBOL,
            side=side,
            entry_price=held.price_open,
            volume=held.volume,
            sl=sl,
            tp=tp,
            strategy_type=strategy_type,
            opened_ns=held.time_msc * 1_000_000,
        )
        return (await feed.register_trade(body)).trade

    async def score(self, total: float) -> None:
        """Somebody outside speaks for the symbol, for a minute."""
        await (await self.client("feed")).report_score(SYMBOL, Score(total=total), valid_ms=60_000)

    async def thresholds(self) -> Any:
        """Those in force now, for a BUY."""
        viewer = await self.client("viewer")
        return (await viewer.get_score(SYMBOL, trade_pb2.SIDE_BUY)).score.thresholds

    async def trade(self, ticket: int) -> trade_pb2.Trade:
        return await (await self.client("viewer")).get_trade(ticket)

    # ---- the end

    async def evidence(self) -> Evidence:
        """The logs at rest: the programs are gone, what they had begun has ended, and the watcher has seen it."""
        for program in self._programs:
            await program.kill()
        viewer = await self.client("viewer")
        await self.told.up_to((await viewer.system_status()).revision)
        await self.told.at_rest()
        return read(self._logs, self.folder / BROKER_LOG)

    async def end(self) -> None:
        """Kills the service that serves now."""
        await self.service.kill()

    async def check(self) -> Evidence:
        """The outside checker's word on all of it."""
        evidence = await self.evidence()
        violations = check(evidence)
        assert not violations, "\n".join(f"{each.guarantee}: {each.fact}" for each in violations)
        return evidence


@asynccontextmanager
async def world(folder: Path, **settings: Any) -> AsyncIterator[World]:
    """A service on ``folder`` with a watcher; ``settings`` are keys of the configuration with __ for the dot."""
    async with opened(folder, await serve_logged(folder, **settings)) as here:
        yield here


@asynccontextmanager
async def opened(folder: Path, service: Service) -> AsyncIterator[World]:
    """A world around a service that serves already; its broker's log is in ``folder``."""
    async with AsyncExitStack() as exits:
        here = World(folder, service, exits)
        exits.push_async_callback(here.end)
        watcher = await here.another("viewer")
        following = asyncio.create_task(here.told.follow(watcher))
        exits.push_async_callback(_cancelled, following)
        yield here


async def serve_logged(folder: Path, *, port: int = 0, **settings: Any) -> Service:
    """A service with its paper account and that account's log."""
    env = {f"DTMS_{key.upper()}": str(value) for key, value in settings.items()}
    return await serve(
        folder / "data", port=port, env=env, arguments=("--paper", "--broker-log", str(folder / BROKER_LOG))
    )


@asynccontextmanager
async def market(tick: Callable[[float], Awaitable[None]], bid: float) -> AsyncIterator[None]:
    """A price that is told again and again: a manager looks at its trades when one comes, DTMS denies what it has no
    price for yet, and whoever was denied waits before it asks anew."""

    async def tell() -> None:
        while True:
            await tick(bid)
            await asyncio.sleep(TICK_S)

    telling = asyncio.create_task(tell())
    try:
        yield
    finally:
        await _cancelled(telling)


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])
