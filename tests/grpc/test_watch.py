"""Watch: every matching event exactly once, in order, from any revision on, and a snapshot that fits to it."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from dtms.v1 import trade_pb2
from dtms.v1.event_pb2 import Event
from dtms.v1.trade_status_service_pb2 import ListTradesRequest, WatchFilter, WatchRequest
from dtms_client import errors
from tests.grpc.test_registry import register, registration
from tests.grpc.watching import all_until, events_until, refusal, response
from tests.stack import Stack, attach_paper, close_all, part_of, running, stop_at

CUTS = 50


async def a_busy_hour(stack: Stack) -> int:
    """Trades that are moved, cut, defended and closed; the revision at the end."""
    for side in (trade_pb2.SIDE_BUY, trade_pb2.SIDE_SELL):
        for index in range(4):
            trade = await stack.trade(side)
            inward = 0.0005 if side == trade_pb2.SIDE_BUY else -0.0005
            for step in range(index):
                stop = round(trade.initial_sl + inward * (step + 1), 5)
                await stack.propose(trade, stop_at(stop))
            if index == 2:
                await stack.propose(trade, part_of(0.5))
            if index == 3:
                await stack.propose(trade, close_all())
    await stack.tick(1.1021)
    await stack.report_score(-5.0)
    await stack.tick(1.1023)
    return stack.system.desk.engine.revision


async def journal(stack: Stack) -> list[Event]:
    return [Event.FromString(body) for _revision, body in await stack.system.desk.commits.read(1, 100_000)]


async def watching(stack: Stack, **request: Any) -> Any:
    return await stack.stream("viewer", WatchRequest(progress_interval_ms=100, **request))


async def test_the_stream_is_the_journal(stack: Stack) -> None:
    """I15: from revision 1 on a watcher gets the journal, event by event, gapless and in order."""
    end = await a_busy_hour(stack)
    events = await all_until(await watching(stack, start_revision=1), end)
    assert [event.revision for event in events] == list(range(1, end + 1))
    assert events == await journal(stack)


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_stream_cut_anywhere_resumes_without_a_gap(stack: Stack, seed: int) -> None:
    """I15: cut fifty times at random points, what came before and after the cuts together is the journal."""
    print(f"seed {seed}")  # noqa: T201
    chance = random.Random(seed)
    end = await a_busy_hour(stack)
    seen: list[Event] = []
    for _ in range(CUTS):
        start = seen[-1].revision + 1 if seen else 1
        call = await watching(stack, start_revision=min(start, end))
        wanted = chance.randrange(0, 1 + end // 20)
        while wanted > 0:
            events = list((await response(call)).events)[: wanted if chance.random() < 0.5 else None]
            seen.extend(event for event in events if not seen or event.revision > seen[-1].revision)
            wanted -= max(1, len(events))
        call.cancel()
        await stack.tick(round(1.1 + chance.randrange(20) / 10_000, 5))
    last = stack.system.desk.engine.revision
    if seen[-1].revision < last:
        seen.extend(await all_until(await watching(stack, start_revision=seen[-1].revision + 1), last))
    assert seen == await journal(stack)


async def test_a_watcher_from_now_on_sees_what_comes_and_nothing_before(stack: Stack) -> None:
    """start_revision 0 begins after the newest durable event."""
    before = stack.system.desk.engine.revision
    call = await watching(stack)
    await response(call)
    trade = await stack.trade()
    events = await events_until(call, lambda event: event.HasField("trade_registered"))
    assert events[0].revision == before + 1
    assert events[-1].ticket == trade.ticket


async def test_snapshot_and_events_make_the_state(stack: Stack) -> None:
    """I18: trades as of the snapshot's revision, then every event after it; a later snapshot shows their sum."""
    await a_busy_hour(stack)
    call = await watching(stack, snapshot=True)
    trades: dict[int, trade_pb2.Trade] = {}
    while True:
        chunk = (await response(call)).snapshot
        trades.update({trade.ticket: trade for trade in chunk.trades})
        if chunk.complete_at_revision:
            break
    as_of = chunk.complete_at_revision
    assert as_of == stack.system.desk.engine.revision
    assert max(trade.revision for trade in trades.values()) <= as_of
    trade = await stack.trade()
    await stack.propose(trade, stop_at(trade.initial_sl + 0.0005))
    await stack.report_score(-9.0)
    end = stack.system.desk.engine.revision
    events = await all_until(call, end)
    assert [event.revision for event in events] == list(range(as_of + 1, end + 1))
    touched = {event.ticket: event for event in events if event.ticket}
    listed = await stack.call("viewer", ListTradesRequest(include_closed=True, page_size=1000))
    now = {trade.ticket: trade for trade in listed.trades}
    for ticket, shown in now.items():
        if ticket in touched:
            assert (shown.revision, shown.state) == (touched[ticket].revision, touched[ticket].state)
        else:
            assert shown == trades[ticket]
    assert set(now) == set(trades) | set(touched)


async def test_a_snapshot_of_nothing_says_so(stack: Stack) -> None:
    """An empty snapshot is one chunk without trades, complete as of a revision."""
    chunk = (await response(await watching(stack, snapshot=True))).snapshot
    assert (list(chunk.trades), chunk.complete_at_revision) == ([], stack.system.desk.engine.revision)


async def test_a_large_snapshot_comes_in_pieces(stack: Stack) -> None:
    """No message grows with the number of trades; only the last piece says that it is complete."""
    await asyncio.gather(*(register(stack, registration(ticket)) for ticket in range(1, 451)))
    call = await watching(stack, snapshot=True)
    chunks = [(await response(call)).snapshot for _ in range(3)]
    assert [len(chunk.trades) for chunk in chunks] == [200, 200, 50]
    assert [bool(chunk.complete_at_revision) for chunk in chunks] == [False, False, True]
    assert sorted(trade.ticket for chunk in chunks for trade in chunk.trades) == list(range(1, 451))


@pytest.mark.parametrize(
    "wanted",
    [
        WatchFilter(tickets=[2]),
        WatchFilter(tickets=[1, 3]),
        WatchFilter(symbols=["GBPUSD"]),
        WatchFilter(symbols=["EURUSD"], states=[trade_pb2.TRADE_STATE_CLOSED]),
        WatchFilter(states=[trade_pb2.TRADE_STATE_WARNING_L1, trade_pb2.TRADE_STATE_WARNING_L2]),
        WatchFilter(account_ids=["1000@paper"]),
        WatchFilter(account_ids=["1@else"]),
    ],
)
async def test_a_filter_takes_exactly_what_matches(stack: Stack, wanted: WatchFilter) -> None:
    """I15: what passes is the same events, exactly once, in order; a progress mark says that nothing was left out."""
    end = await a_busy_hour(stack)

    def passes(event: Event) -> bool:
        return (
            (not wanted.account_ids or event.account_id in wanted.account_ids)
            and (not wanted.tickets or event.ticket in wanted.tickets)
            and (not wanted.symbols or event.symbol in wanted.symbols)
            and (not wanted.states or event.state in wanted.states)
        )

    events = await all_until(await watching(stack, start_revision=1, filter=wanted), end)
    expected = [event for event in await journal(stack) if passes(event)]
    assert events == expected
    listed = await stack.call("viewer", ListTradesRequest(filter=wanted, include_closed=True, page_size=1000))
    chunk = (await response(await watching(stack, snapshot=True, filter=wanted))).snapshot
    assert list(chunk.trades) == list(listed.trades)


async def test_an_idle_stream_says_how_far_it_is(stack: Stack) -> None:
    """I19: marks come at the interval asked for, with the newest revision, also when all events are filtered out."""
    call = await watching(stack, filter=WatchFilter(tickets=[999]))
    first = (await response(call)).progress
    assert first.revision == stack.system.desk.engine.revision
    await stack.trade()
    second = await all_marks_until(call, stack.system.desk.engine.revision)
    assert second.revision == stack.system.desk.engine.revision
    assert second.time_ns > first.time_ns


async def all_marks_until(call: Any, revision: int) -> Any:
    while (message := await response(call)).progress.revision < revision:
        assert not message.events
    return message.progress


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (WatchRequest(start_revision=1, snapshot=True), "start_revision"),
        (WatchRequest(progress_interval_ms=99), "progress_interval_ms"),
        (WatchRequest(progress_interval_ms=60_001), "progress_interval_ms"),
    ],
)
async def test_a_watch_that_makes_no_sense_is_refused_by_field(
    stack: Stack, request_: WatchRequest, field: str
) -> None:
    """INVALID_ARGUMENT before anything is streamed."""
    error = await refusal(await stack.stream("viewer", request_))
    assert isinstance(error, errors.InvalidArgument)
    assert [violation.field for violation in error.violations] == [field]


async def test_a_revision_of_the_future_is_refused(stack: Stack) -> None:
    """I16: a cursor beyond the next event belongs to another history: OUT_OF_RANGE/FUTURE_REVISION, with the newest."""
    newest = stack.system.desk.engine.revision
    error = await refusal(await watching(stack, start_revision=newest + 2))
    assert isinstance(error, errors.OutOfRange)
    assert (error.reason, error.metadata["newest_revision"]) == ("FUTURE_REVISION", str(newest))
    mark = await response(await watching(stack, start_revision=newest + 1))
    assert mark.progress.revision == newest


async def test_a_stream_resumes_after_a_restart(tmp_path: Path) -> None:
    """I15, I20: a cursor outlives the service: the events after it follow, and those before are the same bytes."""
    async with running(tmp_path / "data") as stack:
        await stack.tick(1.1)
        end = await a_busy_hour(stack)
        before = await all_until(await watching(stack, start_revision=1), end)
    async with running(tmp_path / "data") as stack:
        stack.now_msc += 3_600_000
        await stack.tick(1.1)
        await stack.trade()
        newest = stack.system.desk.engine.revision
        after = await all_until(await watching(stack, start_revision=end + 1), newest)
        assert [event.revision for event in after] == list(range(end + 1, newest + 1))
        assert await all_until(await watching(stack, start_revision=1), newest) == before + after


async def test_streams_are_read_while_the_service_recovers(tmp_path: Path) -> None:
    """Reading needs no broker: the journal can be watched before recovery ends, and the stream goes on after it."""
    async with running(tmp_path / "data") as stack:
        await stack.tick(1.1)
        end = await a_busy_hour(stack)
    async with running(tmp_path / "data", attach=False) as stack:
        call = await watching(stack, start_revision=1)
        assert len(await all_until(call, end)) == end
        await attach_paper(stack.system)
        stack.now_msc += 3_600_000
        trade = await stack.trade()
        events = await events_until(call, lambda event: event.HasField("trade_registered"))
        assert events[-1].ticket == trade.ticket
