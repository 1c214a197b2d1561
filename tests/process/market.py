"""Prices and trades of a real service, and managers that run beside it as processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dtms.v1 import action_pb2, trade_pb2
from dtms.v1.event_pb2 import Event
from dtms.v1.market_data_service_pb2 import Bar, StreamBarsRequest, StreamTicksRequest, Tick
from dtms.v1.paper_service_pb2 import OpenPositionRequest
from dtms.v1.registry_service_pb2 import Registration
from dtms.v1.trade_status_service_pb2 import WatchRequest
from dtms_client import AsyncClient
from tests import wire
from tests.grpc.watching import events_until
from tests.process.service_process import Process, Service
from tests.stack import SLOW_S, SYMBOL, WARM_BARS

CONFIRMED = action_pb2.OUTCOME_STATUS_CONFIRMED


class Market:
    """Prices of a service, and a watcher that waits for what comes of them."""

    def __init__(self, feed: AsyncClient, viewer: AsyncClient, now_msc: int) -> None:
        self.feed, self.viewer, self.now_msc = feed, viewer, now_msc

    async def warm_up(self, timeframe_s: int = SLOW_S) -> None:
        """ATR is 0.001."""
        start = (self.now_msc // 1000 // timeframe_s - WARM_BARS) * timeframe_s
        bars = [
            Bar(time_s=start + index * timeframe_s, open=1.1, high=1.1005, low=1.0995, close=1.1, volume=100)
            for index in range(WARM_BARS)
        ]
        request = StreamBarsRequest(symbol=SYMBOL, timeframe_s=timeframe_s, bars=bars)
        await wire.exchange(self.feed.channel, [request], metadata=self.feed.metadata)

    async def tick(self, bid: float, *, after_ms: int = 1000) -> None:
        self.now_msc += after_ms
        tick = Tick(time_msc=self.now_msc, bid=bid, ask=round(bid + 0.0001, 5))
        request = StreamTicksRequest(symbol=SYMBOL, ticks=[tick])
        await wire.exchange(self.feed.channel, [request], metadata=self.feed.metadata)

    async def bars(self, lows: Sequence[float], timeframe_s: int) -> None:
        """Bars that ticks make, 0.0005 high, from the next one on that is seen from its beginning; the last tick is the
        first one of the bar after them, at the top of the last one."""
        length_ms = timeframe_s * 1000
        for low in lows:
            await self.tick(low, after_ms=length_ms - self.now_msc % length_ms)
            await self.tick(round(low + 0.0005, 5), after_ms=70_000)
        await self.tick(round(lows[-1] + 0.0005, 5), after_ms=length_ms - self.now_msc % length_ms)

    async def buy(self, strategy_type: str = "", *, sl: float = 1.0951, tp: float = 1.1101) -> trade_pb2.Trade:
        """A lot at 1.1001, R 0.005, target 0.01 away; owned by DTMS unless its strategy is another manager's."""
        request = OpenPositionRequest(symbol=SYMBOL, side=trade_pb2.SIDE_BUY, volume=1.0, sl=sl, tp=tp)
        held = (await wire.call(self.feed.channel, request, metadata=self.feed.metadata, timeout_s=5)).position
        body = Registration(
            ticket=held.ticket,
            symbol=SYMBOL,
            side=trade_pb2.SIDE_BUY,
            entry_price=held.price_open,
            volume=held.volume,
            sl=sl,
            tp=tp,
            strategy_type=strategy_type,
            opened_ns=held.time_msc * 1_000_000,
        )
        return (await self.feed.register_trade(body)).trade

    async def outcome(self, manager: str, after: int, purpose: action_pb2.Purpose.ValueType) -> Event:
        """The next confirmed outcome of a manager with a purpose, after a revision."""
        watch: Any = wire.stream(
            self.viewer.channel, WatchRequest(start_revision=after + 1), metadata=self.viewer.metadata
        )
        intents: set[int] = set()

        def is_it(event: Event) -> bool:
            intent = event.intent_recorded
            if event.HasField("intent_recorded") and (intent.manager, intent.purpose) == (manager, purpose):
                intents.add(intent.intent_id)
            outcome = event.outcome_recorded.outcome
            return outcome.intent_id in intents and outcome.status == CONFIRMED

        events = await events_until(watch, is_it)
        watch.cancel()
        return events[-1]


async def manager_of(service: Service, command: str, name: str) -> Process:
    """A manager at work: it knows the trades."""
    manager = await Process.start(command, "--address", service.address, "--token-file", service.token(name))
    try:
        await manager.until(lambda: any("trades listed" in str(line) for line in manager.log))
    except BaseException:
        await manager.kill()
        raise
    return manager
