"""What a manager may want beside quotes: bars, indices, memos; live and in lockstep, against a scripted service."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc

from dtms.v1.action_pb2 import PURPOSE_TRAIL
from dtms.v1.arbitration_service_pb2 import ProposeRequest, ProposeResponse, SetMemoRequest, SetMemoResponse
from dtms.v1.event_pb2 import Index
from dtms.v1.lockstep_service_pb2 import JoinRequest, JoinResponse
from dtms.v1.market_data_service_pb2 import (
    Bar,
    ClosedBar,
    Quote,
    WatchBarsRequest,
    WatchBarsResponse,
    WatchQuotesResponse,
)
from dtms.v1.trade_pb2 import SIDE_BUY, TRADE_STATE_HEALTHY, ManagerRecord, Trade
from dtms.v1.trade_status_service_pb2 import BatchGetTradesResponse, ListTradesResponse, SnapshotChunk, WatchResponse
from dtms_client import AsyncClient
from dtms_client.managing.brain import NANOS, Brain
from dtms_client.managing.live import Live
from dtms_client.managing.lockstep import Lockstep
from dtms_client.managing.state_source import Limits
from dtms_client.managing.views import Instrument, QuoteView, TradeView
from dtms_client.managing.wishes import MoveStop, Wish
from dtms_client.testing import Context, ScriptedService, refuse

ACCOUNT = "1@Demo"
MANAGER = "last_low"
QUOTE = Quote(account_id=ACCOUNT, symbol="EURUSD", bid=1.1, ask=1.1001, point=1e-5, volume_min=0.01, volume_step=0.01)


def bar(low: float, time_s: int = 60) -> ClosedBar:
    return ClosedBar(account_id=ACCOUNT, symbol="EURUSD", timeframe_s=60, bar=Bar(time_s=time_s, low=low))


class LastLow(Brain):
    """Puts the stop below the last bar, further away while VIX is high, and remembers the low."""

    timeframes_s = (60,)

    def __init__(self) -> None:
        super().__init__(MANAGER)
        self.low: float | None = None
        self.room = 0.001

    def take_bars(self, bars: Iterable[ClosedBar]) -> list[Instrument]:
        touched: list[Instrument] = []
        for closed in bars:
            self.low = closed.bar.low
            touched.append((closed.account_id, closed.symbol))
        return touched

    def take_indices(self, indices: Iterable[Index]) -> bool:
        high = [index for index in indices if index.value > 18]
        self.room = 0.002 if high else self.room
        return bool(high)

    def wishes(self, trade: TradeView, quote: QuoteView, *, now_ns: int) -> list[Wish]:  # noqa: ARG002
        return [] if self.low is None else [MoveStop(PURPOSE_TRAIL, round(self.low - self.room, 5))]

    def memo(self, trade: TradeView, *, now_ns: int) -> str | None:  # noqa: ARG002
        return None if self.low is None else f"{self.low}"


class Dtms:
    """One trade, and queues of what the service tells."""

    def __init__(self, service: ScriptedService) -> None:
        self.trade = Trade(
            account_id=ACCOUNT, ticket=7, symbol="EURUSD", side=SIDE_BUY, state=TRADE_STATE_HEALTHY, owner_epoch=1
        )
        self.market: asyncio.Queue[WatchQuotesResponse] = asyncio.Queue()
        self.bars: asyncio.Queue[ClosedBar] = asyncio.Queue()
        self.proposals: asyncio.Queue[ProposeRequest] = asyncio.Queue()
        self.memos: asyncio.Queue[SetMemoRequest] = asyncio.Queue()
        self.lost_memos = 0
        for method in ("Watch", "WatchQuotes", "WatchBars", "BatchGetTrades", "Propose", "SetMemo", "ListTrades"):
            service.on(method, getattr(self, method))

    async def Watch(self, _request: Any, _context: Context) -> AsyncIterator[WatchResponse]:  # noqa: N802
        yield WatchResponse(snapshot=SnapshotChunk(trades=[self.trade], complete_at_revision=1))
        await asyncio.get_running_loop().create_future()

    async def WatchQuotes(self, _request: Any, _context: Context) -> AsyncIterator[WatchQuotesResponse]:  # noqa: N802
        while True:
            yield await self.market.get()

    async def WatchBars(self, request: WatchBarsRequest, _context: Context) -> AsyncIterator[WatchBarsResponse]:  # noqa: N802
        assert list(request.timeframes_s) == [60]
        while True:
            yield WatchBarsResponse(bars=[await self.bars.get()])

    async def BatchGetTrades(self, _request: Any, _context: Context) -> BatchGetTradesResponse:  # noqa: N802
        return BatchGetTradesResponse(trades=[self.trade])

    async def ListTrades(self, _request: Any, _context: Context) -> ListTradesResponse:  # noqa: N802
        return ListTradesResponse(trades=[self.trade])

    async def Propose(self, request: ProposeRequest, context: Context) -> ProposeResponse:  # noqa: N802
        self.proposals.put_nowait(request)
        await refuse(context, grpc.StatusCode.FAILED_PRECONDITION, "TRADE_CLOSED")

    async def SetMemo(self, request: SetMemoRequest, context: Context) -> SetMemoResponse:  # noqa: N802
        self.memos.put_nowait(request)
        if self.lost_memos:
            self.lost_memos -= 1
            await refuse(context, grpc.StatusCode.INTERNAL, "CORE_PANIC", retry_after_s=0.01)
        self.trade.ClearField("managers")
        self.trade.managers.append(ManagerRecord(manager=MANAGER, memo=request.memo))
        return SetMemoResponse(revision=2)


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Dtms]:
    async with ScriptedService() as service:
        dtms = Dtms(service)
        async with AsyncClient(service.address, token="t") as client:
            live = Live(client, LastLow(), monotonic=lambda: 0.0, now_ns=lambda: NANOS, limits=Limits())
            task = asyncio.create_task(live.run())
            yield dtms
            task.cancel()
            await asyncio.wait((task,))


async def test_a_bar_and_an_index_make_a_live_manager_look_again() -> None:
    """Without a new price: the closed bar, then the report of VIX lead to proposals of their own."""
    async with running() as dtms:
        dtms.market.put_nowait(WatchQuotesResponse(quotes=[QUOTE]))
        dtms.bars.put_nowait(bar(1.09))
        assert (await dtms.proposals.get()).action.stop == 1.089
        dtms.trade.owner_epoch = 2
        dtms.market.put_nowait(WatchQuotesResponse(indices=[Index(name="VIX", value=20.0)]))
        second = await dtms.proposals.get()
        assert (second.owner_epoch, second.action.stop) == (2, 1.088)


async def test_a_memo_is_kept_by_dtms_and_not_sent_again() -> None:
    """A lost one is sent again; once it stands in the trade, only another one is."""
    async with running() as dtms:
        dtms.lost_memos = 1
        dtms.market.put_nowait(WatchQuotesResponse(quotes=[QUOTE]))
        dtms.bars.put_nowait(bar(1.09))
        assert [(await dtms.memos.get()).memo for _ in range(2)] == ["1.09", "1.09"]
        dtms.bars.put_nowait(bar(1.095, time_s=120))
        assert (await dtms.memos.get()) == SetMemoRequest(account_id=ACCOUNT, ticket=7, memo="1.095")
        assert dtms.memos.empty()


async def test_in_lockstep_a_step_brings_bars_and_indices_and_takes_memos() -> None:
    """The lengths of bars are named on joining; memos go along with the proposals of the step."""
    answers: list[JoinRequest] = []

    async def steps(requests: Any, _context: Context) -> AsyncIterator[JoinResponse]:
        answers.append(await anext(requests))
        yield JoinResponse(seq=1, quotes=[QUOTE], bars=[bar(1.09)], revision=5)
        answers.append(await anext(requests))
        yield JoinResponse(seq=2, indices=[Index(name="VIX", value=20.0)], revision=5, time_ns=9 * NANOS)
        answers.append(await anext(requests))
        yield JoinResponse(seq=3, last=True)

    async with ScriptedService() as service:
        Dtms(service)
        service.on("Join", steps)
        async with AsyncClient(service.address, token="t") as client:
            await Lockstep(client, LastLow()).run(connect_s=1.0)
    assert list(answers[0].timeframes_s) == [60]
    assert [[each.action.stop for each in answer.proposals] for answer in answers] == [[], [1.089], [1.088]]
    assert [[each.memo for each in answer.memos] for answer in answers] == [[], ["1.09"], ["1.09"]]
