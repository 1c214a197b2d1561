"""The exit manager as a process of its own against a real service."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from dtms.v1 import action_pb2, trade_pb2
from dtms.v1.event_pb2 import Event
from dtms.v1.market_data_service_pb2 import Bar, StreamBarsRequest, StreamTicksRequest, Tick
from dtms.v1.paper_service_pb2 import OpenPositionRequest
from dtms.v1.registry_service_pb2 import Registration
from dtms.v1.score_pb2 import Score
from dtms.v1.trade_status_service_pb2 import WatchRequest
from dtms_client import AsyncClient
from tests import wire
from tests.grpc.watching import events_until
from tests.process.service_process import Process, Service, serving
from tests.stack import EXIT_MANAGER, SLOW_S, SYMBOL, T0_MSC, WARM_BARS

CONFIRMED = action_pb2.OUTCOME_STATUS_CONFIRMED


class Market:
    """Prices of a service, and a watcher that waits for what comes of them."""

    def __init__(self, feed: AsyncClient, viewer: AsyncClient, now_msc: int) -> None:
        self.feed, self.viewer, self.now_msc = feed, viewer, now_msc

    async def warm_up(self) -> None:
        """ATR(slow) is 0.001."""
        start = (self.now_msc // 1000 // SLOW_S - WARM_BARS) * SLOW_S
        bars = [
            Bar(time_s=start + index * SLOW_S, open=1.1, high=1.1005, low=1.0995, close=1.1, volume=100)
            for index in range(WARM_BARS)
        ]
        request = StreamBarsRequest(symbol=SYMBOL, timeframe_s=SLOW_S, bars=bars)
        await wire.exchange(self.feed.channel, [request], metadata=self.feed.metadata)

    async def tick(self, bid: float) -> None:
        self.now_msc += 1000
        tick = Tick(time_msc=self.now_msc, bid=bid, ask=round(bid + 0.0001, 5))
        request = StreamTicksRequest(symbol=SYMBOL, ticks=[tick])
        await wire.exchange(self.feed.channel, [request], metadata=self.feed.metadata)

    async def buy(self) -> trade_pb2.Trade:
        """A lot at 1.1001, R 0.005, target 0.01 away, owned by DTMS."""
        request = OpenPositionRequest(symbol=SYMBOL, side=trade_pb2.SIDE_BUY, volume=1.0, sl=1.0951, tp=1.1101)
        held = (await wire.call(self.feed.channel, request, metadata=self.feed.metadata, timeout_s=5)).position
        body = Registration(
            ticket=held.ticket,
            symbol=SYMBOL,
            side=trade_pb2.SIDE_BUY,
            entry_price=held.price_open,
            volume=held.volume,
            sl=1.0951,
            tp=1.1101,
            opened_ns=held.time_msc * 1_000_000,
        )
        return (await self.feed.register_trade(body)).trade

    async def outcome(self, after: int, purpose: action_pb2.Purpose.ValueType) -> Event:
        """The next confirmed outcome of the exit manager with a purpose, after a revision."""
        watch: Any = wire.stream(
            self.viewer.channel, WatchRequest(start_revision=after + 1), metadata=self.viewer.metadata
        )
        intents: set[int] = set()

        def is_it(event: Event) -> bool:
            intent = event.intent_recorded
            if event.HasField("intent_recorded") and (intent.manager, intent.purpose) == (EXIT_MANAGER, purpose):
                intents.add(intent.intent_id)
            outcome = event.outcome_recorded.outcome
            return outcome.intent_id in intents and outcome.status == CONFIRMED

        events = await events_until(watch, is_it)
        watch.cancel()
        return events[-1]


async def exit_manager(service: Service) -> Process:
    manager = await Process.start(
        "exit-manager", "--address", service.address, "--token-file", service.token(EXIT_MANAGER)
    )
    try:
        await manager.until(lambda: any("trades listed" in str(line) for line in manager.log))
    except BaseException:
        await manager.kill()
        raise
    return manager


@pytest.mark.timeout(90)
async def test_a_trade_is_brought_to_breakeven_cut_and_trailed_through_a_restart_of_the_service(tmp_path: Path) -> None:
    """Breakeven at 0.2 R, half off once at half the way, trailing at 1.5 ATR, though the service is killed in between.

    The manager goes on by itself, repeats nothing that was done, and ends with 0 on SIGTERM.
    """
    async with serving(tmp_path) as service, service.client("feed") as feed, service.client("viewer") as viewer:
        market = Market(feed, viewer, T0_MSC)
        await market.warm_up()
        await market.tick(1.1)
        manager = await exit_manager(service)
        try:
            trade = await market.buy()
            await market.tick(1.1013)
            breakeven = await market.outcome(trade.revision, action_pb2.PURPOSE_BREAKEVEN)
            assert breakeven.outcome_recorded.outcome.sl == pytest.approx(1.1001 + 0.0001 + 0.00011, abs=2e-5)
            assert (await viewer.get_trade(trade.ticket)).breakeven_triggered
            await market.tick(1.1052)
            part = await market.outcome(trade.revision, action_pb2.PURPOSE_PARTIAL)
            assert part.outcome_recorded.outcome.volume == pytest.approx(0.5)

            await service.kill()
            port = int(service.address.rpartition(":")[2])
            async with serving(tmp_path, port=port) as _again:
                await market.warm_up()
                await market.tick(1.1062)
                trailed = await market.outcome(part.revision, action_pb2.PURPOSE_TRAIL)
                stop = trailed.outcome_recorded.outcome.sl
                while stop < 1.1062 - 1.5 * 0.0012:
                    trailed = await market.outcome(trailed.revision, action_pb2.PURPOSE_TRAIL)
                    stop = trailed.outcome_recorded.outcome.sl
                now = await viewer.get_trade(trade.ticket)
                assert (now.volume, now.confirmed.tp) == (0.5, 1.1101)
                assert now.confirmed.sl == stop
                assert await manager.terminate() == 0, manager.text()
        finally:
            await manager.kill()
            print(manager.text())  # noqa: T201  shown when the test fails
        assert not any("Traceback" in str(line) for line in manager.log), manager.text()


async def test_it_keeps_its_hands_off_while_dtms_defends(tmp_path: Path) -> None:
    """In WARNING_L2 and HEDGED it proposes nothing, while a healthy trade beside it is looked after."""
    async with serving(tmp_path) as service, service.client("feed") as feed, service.client("viewer") as viewer:
        market = Market(feed, viewer, T0_MSC)
        await market.warm_up()
        await market.tick(1.1)
        defended = await market.buy()
        await market.tick(1.1008)
        await feed.report_score(SYMBOL, Score(total=0.001), valid_ms=60_000)
        in_force = (await viewer.get_score(SYMBOL, trade_pb2.SIDE_BUY)).score.thresholds
        between = Score(total=(in_force.warn2 + in_force.critical) / 2)
        await feed.report_score(SYMBOL, between, valid_ms=60_000)
        assert (await viewer.get_trade(defended.ticket)).state == trade_pb2.TRADE_STATE_WARNING_L2
        manager = await exit_manager(service)
        try:
            await feed.report_score(SYMBOL, Score(total=0.001), valid_ms=60_000)
            healthy = await market.buy()
            await market.tick(1.1033)
            await market.outcome(healthy.revision, action_pb2.PURPOSE_BREAKEVEN)
            decisions = [d async for d in viewer.list_decisions(ticket=defended.ticket, manager=EXIT_MANAGER)]
            assert decisions == []
            assert await manager.terminate() == 0
        finally:
            await manager.kill()


async def test_a_refused_credential_ends_it_with_a_code_of_its_own(tmp_path: Path) -> None:
    """3 says: the token, not the service, is wrong."""
    async with serving(tmp_path) as service:
        wrong = tmp_path / "wrong.token"
        wrong.write_text("x" * 43)
        manager = await Process.start("exit-manager", "--address", service.address, "--token-file", wrong)
        try:
            async with asyncio.timeout(20):
                assert await manager.ended() == 3, manager.text()
        finally:
            await manager.kill()
