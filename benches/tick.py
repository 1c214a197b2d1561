"""From a tick to its decisions with 1,000 trades: the whole service in this process, prices over gRPC."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from benches import paper_trades, plain_table, sampling, world
from benches.figures import Baseline, Figure, Target
from benches.paper_trades import BID, POINT, SPREAD, SYMBOL
from benches.plain_table import BUY, SELL, PlainTrade, Rules, View
from benches.world import SEED, T0_NS
from dtms.v1 import market_data_service_pb2, market_data_service_pb2_grpc, trade_pb2
from dtms_client import AsyncClient
from dtms_service.credentials import CREDENTIALS_FOLDER, token_path
from dtms_service.latency import Latencies
from dtms_service.server import Server
from dtms_service.service import credentials_of, paper_account
from dtms_service.settings import configuration
from dtms_service.system import System

NAME: Final = "plain Python table, the same trades and prices"
SLOW_S: Final = 900
WARM_BARS: Final = 120  # slow bars before the first tick: every indicator but EMA200 is warm
TICK_MS: Final = 1000


@dataclass(frozen=True, slots=True)
class Size:
    trades: int
    ticks: int
    plain_ticks: int  # the twin answers each tick alike: fewer say as much


FULL: Final = Size(trades=1_000, ticks=5_000, plain_ticks=1_000)
QUICK: Final = Size(trades=20, ticks=50, plain_ticks=50)


@dataclass(frozen=True, slots=True)
class Running:
    """A whole service in this loop."""

    system: System
    client: AsyncClient


def measure(quick: bool) -> list[Figure]:
    """5,000 ticks of a random walk over 1,000 trades on both sides; 50 over 20 when quick."""
    size = QUICK if quick else FULL
    with (
        tempfile.TemporaryDirectory(prefix=".bench-tick-", dir=Path.cwd()) as folder,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(_measure(Path(folder), size))


async def _measure(folder: Path, size: Size) -> list[Figure]:
    async with _running(folder) as running:
        await _warm_up(running.client)
        trades = await paper_trades.open_and_register(running.client, size.trades, T0_NS // 1_000_000)
        monitor, revision = running.system.monitor, running.system.desk.engine.revision
        monitor.tick_to_decision, monitor.tick_to_durable = Latencies(), Latencies()
        feed = paper_trades.Feed(running.client, T0_NS // 1_000_000)
        for bid in paper_trades.walk(size.ticks, SEED):
            await feed.tick(bid, after_ms=TICK_MS)
        await feed.close()
        events = running.system.desk.engine.revision - revision
        decided, durable = monitor.tick_to_decision.figures(), monitor.tick_to_durable.figures()
        views = [_view(running, side) for side in (BUY, SELL)]
    plain = _plain_us(trades, views, size)
    p50, p99 = (Baseline(NAME, sampling.quantile(plain, q)) for q in (0.50, 0.99))
    return [
        Figure(f"tick to decision p50, {size.trades} trades, {size.ticks} ticks", "us", decided.p50_us, p50),
        Figure("tick to decision p99", "us", decided.p99_us, p99, Target("value", "at most", 1000)),
        Figure("tick to decision, slowest", "us", decided.max_us),
        Figure(f"tick to durable p50, {durable.count} ticks with events", "us", durable.p50_us),
        Figure("tick to durable p99", "us", durable.p99_us),
        Figure("events of these ticks", "events", float(events)),
    ]


@asynccontextmanager
async def _running(folder: Path) -> AsyncIterator[Running]:
    config = configuration(None, paper=True, given={"data_dir": folder / "data", "server.port": 0})
    system = await System.open(config, None)
    assert config.paper is not None, "paper=True puts it in"
    system.paper = paper_account(config, config.paper)
    server = await Server.start(system, config, credentials_of(config))
    try:
        await system.attach(system.paper.account_id, system.paper, list(system.paper.broker.symbols))
        feed = token_path(config.data_dir / CREDENTIALS_FOLDER, "feed")
        async with AsyncClient(server.address, token_file=feed) as client:
            yield Running(system, client)
    finally:
        await server.stop()


async def _warm_up(client: AsyncClient) -> None:
    """Closed slow bars that lead to BID, so that scores, ATR and swings are known."""
    closes = list(paper_trades.walk(WARM_BARS * 60, SEED + 1))[::60]
    shift = BID - closes[-1]
    bars = []
    for index, (before, close) in enumerate(itertools.pairwise(closes)):
        opened, closed = before + shift, close + shift
        bars.append(
            market_data_service_pb2.Bar(
                time_s=T0_NS // 1_000_000_000 - (WARM_BARS - 1 - index) * SLOW_S,
                open=round(opened, 5),
                high=round(max(opened, closed) + 5 * POINT, 5),
                low=round(min(opened, closed) - 5 * POINT, 5),
                close=round(closed, 5),
                volume=60.0,
            )
        )
    stub = market_data_service_pb2_grpc.MarketDataServiceStub(client.channel)
    call = stub.StreamBars(metadata=client.metadata)
    await call.write(market_data_service_pb2.StreamBarsRequest(symbol=SYMBOL, timeframe_s=SLOW_S, bars=bars))
    await call.read()
    await call.done_writing()


def _view(running: Running, side: int) -> View:
    paper = running.system.paper
    assert paper is not None, "it was put in"
    return world.view_of(running.system.desk.engine, SYMBOL, side, paper.account_id)


def _plain_us(trades: Sequence[trade_pb2.Trade], views: Sequence[View], size: Size) -> list[float]:
    """Wall time of each tick over the same trades; the market, the broker and the disk are not in it."""
    rules: Rules = world.rules(world.config())
    known: list[PlainTrade] = [
        plain_table.register(
            trade.ticket,
            trade.side,
            round(trade.entry_price / POINT),
            risk=round(trade.risk_distance / POINT),
            opened_ns=trade.opened_ns,
            rules=rules,
        )
        for trade in trades
    ]
    durations: list[float] = []
    with sampling.quiet_heap():
        for number, bid in enumerate(paper_trades.walk(size.plain_ticks, SEED), 1):
            points = round(bid / POINT)
            now_ns = T0_NS + number * TICK_MS * 1_000_000
            started = time.perf_counter_ns()
            plain_table.evaluate_all(
                known, views, bid=points, ask=points + round(SPREAD / POINT), rules=rules, now_ns=now_ns
            )
            durations.append((time.perf_counter_ns() - started) / 1000)
    return durations
