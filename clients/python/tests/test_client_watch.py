"""Streams: nothing lost, nothing twice, and nothing kept silent. The peer is a real gRPC server."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest

from dtms.v1.event_pb2 import Event
from dtms.v1.market_data_service_pb2 import Quote, WatchQuotesResponse
from dtms.v1.trade_pb2 import Trade
from dtms.v1.trade_status_service_pb2 import (
    ListTradesResponse,
    Progress,
    SnapshotChunk,
    WatchFilter,
    WatchRequest,
    WatchResponse,
)
from dtms_client import AsyncClient, Client, Interrupted, Listed, Relisted, WatchItem, errors
from dtms_client.testing import Context, ScriptedService, refuse
from dtms_client.watch import Cursor

Answer = Callable[[WatchRequest, Context], AsyncIterator[WatchResponse]]


def events(*revisions: int) -> WatchResponse:
    """One message with these events."""
    return WatchResponse(events=[Event(revision=revision, ticket=7) for revision in revisions])


def mark(revision: int) -> WatchResponse:
    """A progress mark."""
    return WatchResponse(progress=Progress(revision=revision))


def in_turn(*answers: Answer) -> Answer:
    """A script whose n-th call is answered by the n-th of these; the last one stands for all that follow."""
    turns = itertools.chain(answers, itertools.repeat(answers[-1]))

    async def script(request: WatchRequest, context: Context) -> AsyncIterator[WatchResponse]:
        async for response in next(turns)(request, context):
            yield response

    return script


def sending(*responses: WatchResponse, then: str = "stay") -> Answer:
    """Sends, and then stays silent, ends the stream, or drains."""

    async def answer(_request: WatchRequest, context: Context) -> AsyncIterator[WatchResponse]:
        for response in responses:
            yield response
        if then == "stay":
            await asyncio.get_running_loop().create_future()
        elif then != "end":
            await refuse(context, grpc.StatusCode[then], {"UNAVAILABLE": "DRAINING", "OUT_OF_RANGE": "COMPACTED"}[then])

    return answer


async def collect(service: ScriptedService, count: int, *, threads: bool, **watch: Any) -> list[WatchItem]:
    """The first items of a watch, by the client for asyncio or by the one for threads."""
    if threads:

        def read() -> list[WatchItem]:
            with Client(service.address, token="t") as client:
                return list(itertools.islice(client.watch(**watch), count))

        return await asyncio.to_thread(read)
    items: list[WatchItem] = []
    async with AsyncClient(service.address, token="t") as client:
        async for item in client.watch(**watch):
            items.append(item)
            if len(items) == count:
                break
    return items


def revisions(items: list[WatchItem]) -> list[int]:
    """Those of the events among the items."""
    return [item.revision for item in items if isinstance(item, Event)]


both = pytest.mark.parametrize("threads", [False, True], ids=["asyncio", "threads"])


@both
@pytest.mark.parametrize("then", ["UNAVAILABLE", "end"])
async def test_a_broken_stream_resumes_after_the_last_event(threads: bool, then: str) -> None:
    """After a drain, or an end without a word, watching goes on at the next revision and says that it was away."""
    async with ScriptedService() as service:
        service.on("Watch", in_turn(sending(events(5, 6), events(9), then=then), sending(events(10))))
        items = await collect(service, 5, threads=threads, start_revision=5, watch_filter=WatchFilter(tickets=[7]))
    assert revisions(items) == [5, 6, 9, 10]
    assert isinstance(items[3], Interrupted)
    assert isinstance(items[3].error, errors.Unavailable)
    assert [request.start_revision for request in service.requests("Watch")] == [5, 10]
    assert all(request.filter == WatchFilter(tickets=[7]) for request in service.requests("Watch"))


@both
async def test_progress_moves_the_point_of_resumption(threads: bool) -> None:
    """What a mark says was filtered out is not asked for again."""
    async with ScriptedService() as service:
        service.on("Watch", in_turn(sending(mark(40), then="UNAVAILABLE"), sending(events(41))))
        items = await collect(service, 3, threads=threads, start_revision=5)
    assert isinstance(items[0], Progress)
    assert revisions(items) == [41]
    assert service.requests("Watch")[1].start_revision == 41


@both
async def test_compaction_is_told_by_a_relisting(threads: bool) -> None:
    """Where the journal no longer reaches back, the trades come instead of the events, and the gap is named."""
    pieces = (
        WatchResponse(snapshot=SnapshotChunk(trades=[Trade(ticket=7)])),
        WatchResponse(snapshot=SnapshotChunk(trades=[Trade(ticket=8)], complete_at_revision=90)),
        events(91),
    )
    async with ScriptedService() as service:
        service.on("Watch", in_turn(sending(then="OUT_OF_RANGE"), sending(*pieces)))
        items = await collect(service, 2, threads=threads, start_revision=5)
    assert items[0] == Relisted(trades=(Trade(ticket=7), Trade(ticket=8)), revision=90, missed_from=5)
    assert revisions(items) == [91]
    assert [(request.start_revision, request.snapshot) for request in service.requests("Watch")] == [
        (5, False),
        (0, True),
    ]


@both
async def test_a_snapshot_that_breaks_is_taken_again_as_a_whole(threads: bool) -> None:
    """Pieces of a broken snapshot are never mixed with those of the next one."""
    half = WatchResponse(snapshot=SnapshotChunk(trades=[Trade(ticket=1)]))
    whole = WatchResponse(snapshot=SnapshotChunk(trades=[Trade(ticket=2)], complete_at_revision=6))
    async with ScriptedService() as service:
        service.on("Watch", in_turn(sending(half, then="UNAVAILABLE"), sending(whole, events(7))))
        items = await collect(service, 3, threads=threads, snapshot=True)
    assert isinstance(items[0], Interrupted)
    assert items[1] == Listed(trades=(Trade(ticket=2),), revision=6)
    assert revisions(items) == [7]


@both
async def test_silence_is_noticed_by_missing_marks(threads: bool) -> None:
    """A service that froze sends no mark: after three intervals the stream is given up and opened again."""
    async with ScriptedService() as service:
        service.on("Watch", in_turn(sending(mark(5)), sending(events(6))))
        items = await collect(service, 3, threads=threads, start_revision=5, progress_interval_ms=100)
    assert isinstance(items[1], Interrupted)
    assert items[1].error.reason == "SILENT"
    assert revisions(items) == [6]


@both
async def test_from_now_on_is_one_moment_whatever_breaks(threads: bool) -> None:
    """Without a start the newest revision is asked first, so that a break before the first event loses nothing."""

    async def newest(_request: Any, _context: Context) -> ListTradesResponse:
        return ListTradesResponse(revision=30)

    async with ScriptedService() as service:
        service.on("ListTrades", newest)
        service.on("Watch", in_turn(sending(then="UNAVAILABLE"), sending(events(31))))
        items = await collect(service, 2, threads=threads)
    assert revisions(items) == [31]
    assert [request.start_revision for request in service.requests("Watch")] == [31, 31]
    assert len(service.requests("ListTrades")) == 1


@both
@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        ("OUT_OF_RANGE", "FUTURE_REVISION", errors.OutOfRange),
        ("UNAUTHENTICATED", "CREDENTIAL_MISSING", errors.Unauthenticated),
    ],
)
async def test_what_no_repeat_can_mend_is_raised(
    threads: bool, code: str, reason: str, kind: type[errors.DtmsError]
) -> None:
    """A service that knows less than was seen, or that refuses the credential, ends the watch."""

    async def answer(_request: WatchRequest, context: Context) -> AsyncIterator[WatchResponse]:
        for nothing in list[WatchResponse]():
            yield nothing
        await refuse(context, grpc.StatusCode[code], reason)

    async with ScriptedService() as service:
        service.on("Watch", answer)
        with pytest.raises(kind) as caught:
            await collect(service, 1, threads=threads, start_revision=5)
    assert caught.value.reason == reason


async def test_a_restart_on_the_same_port_is_found_again() -> None:
    """The service goes away and comes back: the watch goes on where it was."""
    async with ScriptedService() as service:
        service.on("Watch", in_turn(sending(events(5)), sending(events(6))))
        items: list[WatchItem] = []
        async with AsyncClient(service.address, token="t") as client:
            async for item in client.watch(start_revision=5):
                items.append(item)
                if revisions(items) == [5] and isinstance(item, Event):
                    await service.stop()
                elif isinstance(item, Interrupted) and len(items) == 2:
                    await service.start()
                elif revisions(items) == [5, 6]:
                    break
    assert service.requests("Watch")[-1].start_revision == 6


async def test_closing_the_client_ends_the_watch_of_a_thread() -> None:
    """close() from another thread lets a blocked watch return."""
    entered = asyncio.Event()
    loop = asyncio.get_running_loop()

    async with ScriptedService() as service:
        service.on("Watch", sending(mark(5)))
        client = Client(service.address, token="t")

        def watch() -> int:
            return sum(loop.call_soon_threadsafe(entered.set) is not None for _ in client.watch(start_revision=5))

        watching = asyncio.create_task(asyncio.to_thread(watch))
        await entered.wait()
        client.close()
        assert await watching == 1


def test_an_event_that_comes_twice_is_a_broken_promise() -> None:
    """The cursor refuses an event that was due earlier instead of handing it on."""
    cursor = Cursor(start_revision=5, snapshot=False, watch_filter=None, progress_interval_ms=5_000)
    cursor.take(events(5, 6))
    with pytest.raises(errors.Unexpected) as caught:
        cursor.take(events(6))
    assert caught.value.reason == "OUT_OF_ORDER"


def test_a_snapshot_and_a_start_exclude_each_other() -> None:
    """What the service would refuse is refused here."""
    with pytest.raises(ValueError, match="snapshot"):
        Cursor(start_revision=5, snapshot=True, watch_filter=None, progress_interval_ms=5_000)


@both
async def test_quotes_resume(threads: bool) -> None:
    """Quotes come batch by batch, and go on after the service was away."""
    turns = iter(["UNAVAILABLE", ""])

    async def answer(_request: Any, context: Context) -> AsyncIterator[WatchQuotesResponse]:
        turn = next(turns)
        yield WatchQuotesResponse(quotes=[Quote(symbol="EURUSD", bid=1.1), Quote(symbol="XAUUSD", bid=1900.0)])
        if turn:
            await refuse(context, grpc.StatusCode[turn], "DRAINING")

    async with ScriptedService() as service:
        service.on("WatchQuotes", answer)
        if threads:

            def read() -> list[Any]:
                with Client(service.address, token="t") as client:
                    return list(itertools.islice(client.watch_quotes(symbols=["EURUSD"]), 3))

            items = await asyncio.to_thread(read)
        else:
            items = []
            async with AsyncClient(service.address, token="t") as client:
                async for item in client.watch_quotes(symbols=["EURUSD"]):
                    items.append(item)
                    if len(items) == 3:
                        break
    assert isinstance(items[1], Interrupted)
    assert (
        [quote.symbol for quote in items[0].quotes]
        == [quote.symbol for quote in items[2].quotes]
        == ["EURUSD", "XAUUSD"]
    )
    assert list(service.requests("WatchQuotes")[0].symbols) == ["EURUSD"]
