"""TradeStatusService: states, asked for or streamed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from dtms.v1 import score_pb2, trade_pb2
from dtms.v1 import trade_status_service_pb2 as pb
from dtms_service import convert
from dtms_service.config import LimitsConfig
from dtms_service.desk import Desk, TradeKey
from dtms_service.doors import Doors
from dtms_service.errors import DtmsError, Reason, invalid
from dtms_service.event_log import Filter
from dtms_service.interceptors import Call
from dtms_service.servicers.paging import MAX_BATCH, keys_after, page_size_of, require, token_of
from dtms_service.servicers.watch import Watches, filter_of

MIN_PROGRESS_MS, MAX_PROGRESS_MS = 100, 60_000


@dataclass(frozen=True, slots=True)
class TradeStatusServicer:
    desk: Desk
    doors: Doors
    limits: LimitsConfig
    watches: Watches
    progress_interval_ms: int

    async def GetTrade(self, request: pb.GetTradeRequest, _call: Call) -> bytes:
        key = (self.doors.resolve(request.account_id), request.ticket)
        return convert.as_first_field(await self.desk.trade_bytes(key))

    async def BatchGetTrades(self, request: pb.BatchGetTradesRequest, _call: Call) -> bytes:
        require("tickets", request.tickets)
        if len(request.tickets) > MAX_BATCH:
            raise invalid("tickets", f"at most {MAX_BATCH}")
        account_id = self.doors.resolve(request.account_id)
        known, unknown = [], []
        for ticket in request.tickets:
            if self.desk.knows((account_id, ticket)):
                known.append(convert.as_first_field(await self.desk.trade_bytes((account_id, ticket))))
            else:
                unknown.append(ticket)
        # Each trade is encoded already: managers ask for a thousand at a time.
        return b"".join(known) + pb.BatchGetTradesResponse(unknown_tickets=unknown).SerializeToString()

    async def ListTrades(self, request: pb.ListTradesRequest, _call: Call) -> pb.ListTradesResponse:
        wanted = filter_of(request.filter)
        size = page_size_of(request.page_size, self.limits.max_page_size)
        revision = self.desk.engine.revision
        following = keys_after(self.desk.keys(include_closed=True), request.page_token)
        page, token = self._page(following, wanted, size, include_closed=request.include_closed)
        await self.desk.commits.durable(revision)
        return pb.ListTradesResponse(trades=page, next_page_token=token, revision=revision)

    async def GetScore(self, request: pb.GetScoreRequest, _call: Call) -> pb.GetScoreResponse:
        require("symbol", request.symbol)
        require("side", request.side)
        account_id = self.doors.resolve(request.account_id)
        score = self.desk.score(account_id, request.symbol, request.side)
        quote = self.desk.quote(account_id, request.symbol)
        if score is None or quote is None:
            raise DtmsError(Reason.SYMBOL_UNKNOWN, f"no price of {request.symbol} on {account_id} yet")
        return pb.GetScoreResponse(
            score=score_pb2.Score(**score), time_ns=quote["time_msc"] * 1_000_000, warm="atr_slow" in quote
        )

    def Watch(self, request: pb.WatchRequest, _call: Call) -> AsyncIterator[pb.WatchResponse | bytes]:
        if request.snapshot and request.start_revision:
            raise invalid("start_revision", "not together with snapshot: events follow the snapshot by themselves")
        interval_ms = request.progress_interval_ms or self.progress_interval_ms
        if not MIN_PROGRESS_MS <= interval_ms <= MAX_PROGRESS_MS:
            raise invalid("progress_interval_ms", f"must be {MIN_PROGRESS_MS} to {MAX_PROGRESS_MS}, or 0")
        wanted = filter_of(request.filter)
        cursor = request.start_revision or self.watches.events.newest_revision + 1
        # Not a generator itself: each one that a message passes through costs about a microsecond.
        return self.watches.stream(cursor, wanted, interval_ms / 1000, snapshot=request.snapshot)

    def _page(
        self, keys: Sequence[TradeKey], wanted: Filter, size: int, *, include_closed: bool
    ) -> tuple[list[trade_pb2.Trade], str]:
        """The first ``size`` that match, and the token where there are more."""
        page: list[trade_pb2.Trade] = []
        for key in keys:
            trade = trade_pb2.Trade.FromString(self.desk.view(key))
            is_listed = include_closed or trade.state != trade_pb2.TRADE_STATE_CLOSED
            if is_listed and wanted.passes(convert.entry_of_trade(trade)):
                if len(page) == size:
                    return page, token_of((page[-1].account_id, page[-1].ticket))
                page.append(trade)
        return page, ""
