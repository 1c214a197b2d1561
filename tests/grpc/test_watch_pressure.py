"""Watch under pressure: slow readers, compaction, limits and the end of the service."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from dtms.v1.market_data_service_pb2 import StreamTicksRequest, StreamTicksResponse, Tick, WatchQuotesRequest
from dtms.v1.trade_status_service_pb2 import WatchFilter
from dtms_client import errors
from dtms_client.watch import Relisted
from dtms_service import recovery
from tests.grpc.test_watch import watching
from tests.grpc.watching import all_until, refusal, response
from tests.stack import EXIT_MANAGER, Stack, running, stop_at

SMALL_RING = {"event_log.capacity": 8, "limits.max_batch_events": 4}


async def many_events(stack: Stack, count: int) -> int:
    """Denied proposals: one event each; the revision at the end."""
    trade = await stack.trade()
    for _ in range(count):
        await stack.propose(trade, stop_at(1.0941))
    return stack.system.desk.engine.revision


async def compact(stack: Stack, before: int) -> None:
    """The journal forgets what lies before a revision, as an operator lets it."""
    commits = stack.system.desk.commits
    snapshot = recovery.snapshot_of(stack.system.desk.engine)
    for _ in range(2):  # the two newest are kept, and what follows either must stay
        await commits.save_snapshot(snapshot)
        await stack.report_score(0.0)
        snapshot = recovery.snapshot_of(stack.system.desk.engine)
    assert await commits.compact(before) == before


async def test_a_reader_that_never_reads_delays_nobody(stack: Stack) -> None:
    """I17: with a hundred idle readers writes and a reading watcher go on; what they miss waits in the journal."""
    lazy = [await watching(stack, start_revision=1) for _ in range(100)]
    busy = await watching(stack, start_revision=1)
    trade = await stack.trade()
    for _ in range(200):
        await stack.propose(trade, stop_at(1.0941))
    end = stack.system.desk.engine.revision
    events = await all_until(busy, end)
    assert [event.revision for event in events] == list(range(1, end + 1))
    late = await all_until(lazy[50], end)
    assert late == events


async def test_a_reader_behind_the_ring_goes_on_from_the_journal(tmp_path: Path) -> None:
    """I16, I17: who falls off the ring misses nothing: old events come from disk, the newest from memory."""
    async with running(tmp_path / "data", SMALL_RING) as stack:
        slow = await watching(stack, start_revision=1)
        await response(slow)
        end = await many_events(stack, 60)
        other = await watching(stack, start_revision=1)
        assert [event.revision for event in await all_until(other, end)] == list(range(1, end + 1))
        assert (await all_until(slow, end))[-1].revision == end


async def test_a_compacted_start_is_told_with_what_is_left(tmp_path: Path) -> None:
    """I16: OUT_OF_RANGE/COMPACTED carries the oldest revision; from there on, and by snapshot, watching works."""
    async with running(tmp_path / "data", SMALL_RING) as stack:
        end = await many_events(stack, 40)
        await compact(stack, end - 5)
        error = await refusal(await watching(stack, start_revision=3))
        assert isinstance(error, errors.Compacted)
        assert error.oldest_revision == end - 5
        newest = stack.system.desk.engine.revision
        events = await all_until(await watching(stack, start_revision=end - 5), newest)
        assert [event.revision for event in events] == list(range(end - 5, newest + 1))
        chunk = (await response(await watching(stack, snapshot=True))).snapshot
        assert (len(chunk.trades), chunk.complete_at_revision) == (1, newest)
        status = await (await stack.client("viewer")).system_status()
        assert status.oldest_revision == end - 5


async def test_compaction_under_a_watcher_is_told_and_mended_by_its_client(tmp_path: Path) -> None:
    """I16: the client's watch tells a gap as Relisted, with the trades in place of the lost events."""
    async with running(tmp_path / "data", SMALL_RING) as stack:
        end = await many_events(stack, 40)
        await compact(stack, end - 5)
        items = (await stack.client("viewer")).watch(start_revision=2, progress_interval_ms=100)
        try:
            item = await anext(items)
        finally:
            await items.aclose()
        assert isinstance(item, Relisted)
        assert (item.missed_from, len(item.trades)) == (2, 1)
        assert item.revision == stack.system.desk.engine.revision


async def test_watchers_are_limited_by_name(tmp_path: Path) -> None:
    """RESOURCE_EXHAUSTED/LIMIT_REACHED names the limit; a stream that ends makes room."""
    async with running(tmp_path / "data", {"limits.max_watchers": 2}) as stack:
        first = await watching(stack)
        second = await watching(stack)
        await asyncio.gather(response(first), response(second))
        error = await refusal(await watching(stack))
        assert isinstance(error, errors.ResourceExhausted)
        assert error.metadata == {"limit": "limits.max_watchers", "value": "2"}
        assert error.retry_after_s == 1.0
        assert (await (await stack.client("viewer")).system_status()).watchers == 2
        first.cancel()
        while (await (await stack.client("viewer")).system_status()).watchers == 2:
            pass  # each round is a call that the service answers: the cancelled stream ends between two of them
        assert (await response(await watching(stack))).HasField("progress")


@pytest.mark.parametrize("wanted", [WatchFilter(), WatchFilter(tickets=[999])])
async def test_a_draining_service_tells_where_to_resume(stack: Stack, wanted: WatchFilter) -> None:
    """UNAVAILABLE/DRAINING with resume_revision: the very next event, and nothing was swallowed before."""
    call = await watching(stack, start_revision=1, filter=wanted)
    await all_until(call, stack.system.desk.engine.revision)
    stack.system.begin_drain("test")
    error = await refusal(call)
    assert isinstance(error, errors.Unavailable)
    assert error.reason == "DRAINING"
    assert error.metadata["resume_revision"] == str(stack.system.desk.engine.revision + 1)


async def test_a_draining_service_ends_its_streams_before_the_grace_runs_out(tmp_path: Path) -> None:
    """Watchers, quote readers and an idle feed are told to go: the stop takes no longer than what is in flight."""
    async with running(tmp_path / "data", {"server.drain_ms": 30_000}) as stack:
        await stack.tick(1.1)
        events = await watching(stack, start_revision=1)
        quotes = await stack.stream(EXIT_MANAGER, WatchQuotesRequest())
        await asyncio.gather(response(events), response(quotes))
        feed = await stack.client("feed")
        idle = idle_feed(feed)
        await idle.read()
        async with asyncio.timeout(5):
            await stack.server.stop()
        for call in (events, quotes, idle):
            error = await refusal(call)
            assert (type(error), error.reason) == (errors.Unavailable, "DRAINING")


def idle_feed(feed: Any) -> Any:
    """A feed that has sent one tick and says nothing more."""

    async def once_and_then_nothing() -> Any:
        yield StreamTicksRequest(symbol="EURUSD", ticks=[Tick(time_msc=1_800_000_000_000, bid=1.1, ask=1.1001)])
        await asyncio.Event().wait()

    method = feed.channel.stream_stream(
        "/dtms.v1.MarketDataService/StreamTicks",
        request_serializer=StreamTicksRequest.SerializeToString,
        response_deserializer=StreamTicksResponse.FromString,
    )
    call: grpc.aio.StreamStreamCall[Any, Any] = method(once_and_then_nothing(), metadata=feed.metadata)
    return call
