"""The clients through kill -9 and compaction of a real service: what they promise about streams and registrations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dtms.v1.event_pb2 import Event
from dtms.v1.market_data_service_pb2 import StreamTicksRequest, Tick
from dtms.v1.registry_service_pb2 import Registration
from dtms.v1.trade_pb2 import SIDE_BUY
from dtms_client import AsyncClient, Client, Interrupted, Listed, Registrar, RegistrationFailure, Relisted, WatchItem
from dtms_client.errors import Unavailable
from dtms_client.testing import PATIENCE_S, ManualTime
from tests import wire
from tests.process.service_process import Service, serve, serving
from tests.stack import DONE, SYMBOL, T0_MSC

FORGETFUL = {
    "DTMS_JOURNAL__KEEP_EVENTS": "5",
    "DTMS_JOURNAL__SNAPSHOT_EVERY_EVENTS": "10",
    "DTMS_EVENT_LOG__CAPACITY": "8",
}
REGISTRATIONS = 5


class Watcher:
    """Reads a watch of either client only when asked to; ``items`` has all that it was given."""

    def __init__(self, items: AsyncGenerator[WatchItem, None] | Generator[WatchItem, None, None]) -> None:
        self._source = items
        self.items: list[WatchItem] = []

    async def next(self) -> WatchItem:
        if isinstance(self._source, AsyncGenerator):
            item = await anext(self._source)
        else:
            item = await asyncio.to_thread(next, self._source)
        self.items.append(item)
        return item

    async def until(self, revision: int) -> None:
        """Reads up to the event of this revision."""
        while True:
            item = await self.next()
            if isinstance(item, Event) and item.revision >= revision:
                return

    @property
    def revisions(self) -> list[int]:
        return [item.revision for item in self.items if isinstance(item, Event)]


@asynccontextmanager
async def watchers(service: Service) -> AsyncIterator[list[Watcher]]:
    """One of each client, from the first event on."""
    token = service.token("viewer")
    async with AsyncClient(service.address, token_file=token) as loop_client:
        with Client(service.address, token_file=token) as thread_client:
            of_loop = loop_client.watch(start_revision=1)
            yield [Watcher(of_loop), Watcher(thread_client.watch(start_revision=1))]
            await of_loop.aclose()


async def open_position(feed: AsyncClient) -> Registration:
    """A position at the paper account, and the registration that fits it."""
    tick = Tick(time_msc=T0_MSC, bid=1.1, ask=1.1001)
    await wire.exchange(feed.channel, [StreamTicksRequest(symbol=SYMBOL, ticks=[tick])], metadata=feed.metadata)
    answer = await feed.open_position(SYMBOL, SIDE_BUY, 0.1, sl=1.09)
    assert answer.retcode == DONE, answer
    held = answer.position
    return Registration(
        ticket=held.ticket,
        symbol=SYMBOL,
        side=SIDE_BUY,
        entry_price=held.price_open,
        volume=held.volume,
        sl=held.sl,
        opened_ns=held.time_msc * 1_000_000,
    )


async def newest(service: Service) -> int:
    async with service.client("viewer") as viewer:
        return (await viewer.system_status()).revision


@pytest.mark.timeout(90)
async def test_streams_and_registrations_live_through_a_kill(tmp_path: Path) -> None:
    """kill -9 while five positions are registered: after the restart all five are, in order, and both watchers have
    read every event exactly once, in order, with the break told."""
    time, loop = ManualTime(), asyncio.get_running_loop()
    told: asyncio.Queue[RegistrationFailure] = asyncio.Queue()
    async with serving(tmp_path) as service, watchers(service) as both:
        before = await newest(service)
        for watcher in both:
            await watcher.until(before)
        await service.kill()
        registrar = Registrar(
            service.address,
            token_file=service.token("feed"),
            on_failure=lambda failure: loop.call_soon_threadsafe(told.put_nowait, failure),
            alarm=time.alarm(),
        )
        # No positions behind them: those that are open at the broker would be adopted by the restart itself.
        tickets = range(1, 1 + REGISTRATIONS)
        pending = [
            registrar.auto_register(
                Registration(ticket=ticket, symbol=SYMBOL, side=SIDE_BUY, entry_price=1.1, volume=0.1)
            )
            for ticket in tickets
        ]
        time.fly()
        for _ in tickets:
            assert isinstance((await told.get()).error, Unavailable)
        async with restarted(service) as back:
            for each in pending:
                assert (await asyncio.to_thread(each.delivered, PATIENCE_S)).created
            await asyncio.to_thread(registrar.close)
            async with back.client("viewer") as viewer:
                listed = [each.ticket async for each in viewer.list_registrations()]
            assert listed == list(tickets)
            after = await newest(back)
            for watcher in both:
                await watcher.until(after)
                assert watcher.revisions == list(range(1, after + 1))
                assert any(isinstance(item, Interrupted) for item in watcher.items)
                assert not any(isinstance(item, Listed | Relisted) for item in watcher.items)


@pytest.mark.timeout(90)
async def test_a_watcher_that_missed_compacted_events_is_told(tmp_path: Path) -> None:
    """While nobody reads, the service is killed, comes back and forgets what was not read: both watchers get the trades
    instead, with where the gap begins and ends, and every event after it exactly once."""
    async with serving(tmp_path, env=FORGETFUL) as service, watchers(service) as both:
        async with service.client("feed") as feed:
            opened = await open_position(feed)
            trade = (await feed.register_trade(opened)).trade
        for watcher in both:
            await watcher.until(trade.revision)
        await service.kill()
        async with restarted(service, env=FORGETFUL) as back, back.client("feed") as feed:
            while (await feed.system_status()).oldest_revision <= trade.revision + 1:
                # Each round is an event, so that snapshots are taken and what lies before them is dropped.
                await feed.report_index("VIX", 20.0, valid_ms=1_000)
            for watcher in both:
                while not isinstance(item := await watcher.next(), Relisted):
                    assert isinstance(item, Interrupted), item
                assert item.missed_from == max(watcher.revisions) + 1
                assert [each.ticket for each in item.trades] == [opened.ticket]
                read = len(watcher.revisions)
                await feed.report_index("VIX", 21.0, valid_ms=1_000)
                after = await newest(back)
                await watcher.until(after)
                assert watcher.revisions[read:] == list(range(item.revision + 1, after + 1))


@asynccontextmanager
async def restarted(service: Service, *, env: dict[str, str] | None = None) -> AsyncIterator[Service]:
    """The same data served again on the same port."""
    back = await serve(service.data_dir, port=int(service.address.rpartition(":")[2]), env=env)
    try:
        yield back
    finally:
        await back.kill()
