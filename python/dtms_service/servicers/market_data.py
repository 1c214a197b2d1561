"""MarketDataService: prices in for the embedded paper broker, outside scores, quotes out."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from dtms.v1 import market_data_service_pb2 as pb
from dtms_service import convert
from dtms_service.bars import KEPT, TIMEFRAMES_S, ClosedBar, Wanted
from dtms_service.desk import Desk
from dtms_service.doors import Doors
from dtms_service.errors import DtmsError, Reason, invalid
from dtms_service.interceptors import Call
from dtms_service.monitor import Monitor
from dtms_service.paper_account import PaperAccount
from dtms_service.quotes import Quotes
from dtms_service.servicers.paging import inside, require

MAX_BATCH = 1000  # ticks or bars a message: about 40 KB
MAX_VALID_MS = 3_600_000
MAX_QUOTES_INTERVAL_MS = 1000  # a price that is older when it comes is no price
MAX_INDEX_VALID_MS = 604_800_000  # a week: a daily close over a long holiday


@dataclass(frozen=True, slots=True)
class MarketDataServicer:
    desk: Desk
    doors: Doors
    monitor: Monitor
    quotes: Quotes
    paper: PaperAccount | None

    async def StreamTicks(
        self, requests: AsyncIterator[pb.StreamTicksRequest], _call: Call
    ) -> AsyncIterator[pb.StreamTicksResponse]:
        paper, done = paper_of(self.paper), 0
        async for request in requests:
            account_id, _ = self._batch(request.account_id, request.symbol, len(request.ticks), "ticks")
            for index, tick in enumerate(request.ticks):
                _require_prices(f"ticks[{index}]", tick.bid, tick.ask)
                paper.on_tick(request.symbol, tick)
                await self.monitor.tick(account_id, request.symbol, tick, paper.change_count)
            done += len(request.ticks)
            yield pb.StreamTicksResponse(ticks_done=done, revision=self.desk.commits.durable_revision)

    async def StreamBars(
        self, requests: AsyncIterator[pb.StreamBarsRequest], _call: Call
    ) -> AsyncIterator[pb.StreamBarsResponse]:
        taken = ignored = 0
        async for request in requests:
            account_id, symbol = self._batch(request.account_id, request.symbol, len(request.bars), "bars")
            require("timeframe_s", request.timeframe_s)
            for bar in request.bars:
                values = (bar.time_s, bar.open, bar.high, bar.low, bar.close, bar.volume)
                self.monitor.bars.feed(account_id, symbol, request.timeframe_s, ClosedBar(*values))
                if self.desk.bar(account_id, symbol, request.timeframe_s, values):
                    taken += 1
                else:
                    ignored += 1
            await self.desk.settled()
            yield pb.StreamBarsResponse(bars_taken=taken, bars_ignored=ignored)

    async def ReportScore(self, request: pb.ReportScoreRequest, call: Call) -> pb.ReportScoreResponse:
        account_id, symbol = self._batch(request.account_id, request.symbol, 1, "score")
        if not 1 <= request.valid_ms <= MAX_VALID_MS:
            raise invalid("valid_ms", f"must be 1 to {MAX_VALID_MS}")
        require("score", request.HasField("score"))
        score = convert.to_dict(request.score)
        if not request.score.total:  # not said: the parts speak
            del score["total"]
        with inside("score"):
            revision = await self.desk.report_score(account_id, symbol, score, call.principal.name, request.valid_ms)
        return pb.ReportScoreResponse(revision=revision)

    async def WatchQuotes(self, request: pb.WatchQuotesRequest, _call: Call) -> AsyncIterator[pb.WatchQuotesResponse]:
        if request.min_interval_ms > MAX_QUOTES_INTERVAL_MS:
            raise invalid("min_interval_ms", f"at most {MAX_QUOTES_INTERVAL_MS}")
        account_id = self.doors.resolve(request.account_id) if request.account_id else ""
        async for changes in self.quotes.watch(account_id, request.symbols, request.min_interval_ms / 1000):
            yield pb.WatchQuotesResponse(
                quotes=map(convert.quote, changes.quotes), indices=map(convert.index, changes.indices)
            )

    async def ReportIndex(self, request: pb.ReportIndexRequest, call: Call) -> pb.ReportIndexResponse:
        require("name", request.name)
        if not 1 <= request.valid_ms <= MAX_INDEX_VALID_MS:
            raise invalid("valid_ms", f"must be 1 to {MAX_INDEX_VALID_MS}")
        revision = await self.desk.report_index(request.name, request.value, call.principal.name, request.valid_ms)
        return pb.ReportIndexResponse(revision=revision)

    async def WatchBars(self, request: pb.WatchBarsRequest, _call: Call) -> AsyncIterator[pb.WatchBarsResponse]:
        require("timeframes_s", request.timeframes_s)
        if request.history > KEPT:
            raise invalid("history", f"at most {KEPT}")
        account_id = self.doors.resolve(request.account_id) if request.account_id else ""
        wanted = Wanted(account_id, frozenset(request.symbols), timeframes_of(request.timeframes_s))
        async for bars in self.monitor.bars.watch(wanted, request.history):
            for start in range(0, len(bars), MAX_BATCH):
                yield pb.WatchBarsResponse(bars=map(convert.closed_bar, bars[start : start + MAX_BATCH]))

    def _batch(self, account_id: str, symbol: str, count: int, field: str) -> tuple[str, str]:
        require("symbol", symbol)
        require(field, count)
        if count > MAX_BATCH:
            raise invalid(field, f"at most {MAX_BATCH} a message")
        return self.doors.resolve(account_id), symbol


def timeframes_of(lengths_s: Iterable[int]) -> tuple[int, ...]:
    """The lengths, each once and in order. Raises FIELD_INVALID for one that is not kept."""
    unknown = sorted(set(lengths_s) - set(TIMEFRAMES_S))
    if unknown:
        raise invalid("timeframes_s", f"{unknown[0]} is not one of {', '.join(map(str, TIMEFRAMES_S))}")
    return tuple(sorted(set(lengths_s)))


def paper_of(paper: PaperAccount | None) -> PaperAccount:
    if paper is None:
        raise DtmsError(
            Reason.MODE_UNSUPPORTED, "this service runs no embedded paper broker: prices come from a gateway"
        )
    return paper


def _require_prices(field: str, bid: float, ask: float) -> None:
    for name, price in (("bid", bid), ("ask", ask)):
        if not (math.isfinite(price) and price > 0):
            raise invalid(f"{field}.{name}", "must be a positive number")
    if ask < bid:
        raise invalid(f"{field}.ask", f"{ask} lies below the bid {bid}")
