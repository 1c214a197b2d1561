"""The client for asyncio. `dtms_client.client` has the same methods for threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from dtms.v1.action_pb2 import DENIAL_CODE_UNSPECIFIED, Action, Decision, DenialCode
from dtms.v1.admin_service_pb2 import (
    BackupRequest,
    BackupResponse,
    DrainRequest,
    DrainResponse,
    GetSystemStatusRequest,
    GetSystemStatusResponse,
    ReloadConfigurationRequest,
    ReloadConfigurationResponse,
    SetKillSwitchRequest,
    SetKillSwitchResponse,
    SetRiskBudgetRequest,
    SetRiskBudgetResponse,
    SetTradingStateRequest,
    SetTradingStateResponse,
)
from dtms.v1.admin_service_pb2_grpc import AdminServiceStub
from dtms.v1.arbitration_service_pb2 import (
    AcquireOwnershipRequest,
    AcquireOwnershipResponse,
    ExplainResponse,
    Grant,
    ProposeRequest,
    ProposeResponse,
    ReleaseOwnershipRequest,
    RenewOwnershipRequest,
    RenewOwnershipResponse,
    SetMemoRequest,
    SetMemoResponse,
)
from dtms.v1.arbitration_service_pb2_grpc import ArbitrationServiceStub
from dtms.v1.event_pb2 import KillScope, TradingState
from dtms.v1.gateway_service_pb2 import BrokerPosition
from dtms.v1.market_data_service_pb2 import (
    ClosedBar,
    ReportIndexRequest,
    ReportIndexResponse,
    ReportScoreRequest,
    ReportScoreResponse,
    WatchQuotesRequest,
)
from dtms.v1.market_data_service_pb2_grpc import MarketDataServiceStub
from dtms.v1.ownership_pb2 import Ownership
from dtms.v1.paper_service_pb2 import (
    ClosePositionRequest,
    ClosePositionResponse,
    ListPositionsRequest,
    ModifyPositionRequest,
    ModifyPositionResponse,
    OpenPositionRequest,
    OpenPositionResponse,
)
from dtms.v1.paper_service_pb2_grpc import PaperServiceStub
from dtms.v1.registry_service_pb2 import (
    GetOwnershipRequest,
    GetRegistrationRequest,
    GetRegistrationResponse,
    RegisterTradeRequest,
    RegisterTradeResponse,
    Registration,
    UnregisterTradeRequest,
    UnregisterTradeResponse,
)
from dtms.v1.registry_service_pb2_grpc import RegistryServiceStub
from dtms.v1.score_pb2 import Score
from dtms.v1.trade_pb2 import Side, Trade
from dtms.v1.trade_status_service_pb2 import (
    BatchGetTradesRequest,
    BatchGetTradesResponse,
    GetScoreRequest,
    GetScoreResponse,
    GetTradeRequest,
    ListTradesRequest,
    WatchFilter,
    WatchRequest,
    WatchResponse,
)
from dtms.v1.trade_status_service_pb2_grpc import TradeStatusServiceStub
from dtms_client._channel import Backoff, Metadata, Target, deadlines, target
from dtms_client.errors import OUTAGE, Cancelled, Compacted, DtmsError, closed, from_rpc
from dtms_client.requests import (
    explain_request,
    list_decisions_request,
    list_registrations_request,
    list_trades_request,
)
from dtms_client.watch import (
    BACKUP_METHOD,
    BARS_KEPT,
    BARS_METHOD,
    DEFAULT_PROGRESS_MS,
    METHOD,
    QUOTES_METHOD,
    BarCursor,
    Cursor,
    Interrupted,
    Quotes,
    WatchItem,
    ended,
    silent,
)

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)


class _Open:
    """A channel and its stubs, bound to the loop that made them."""

    def __init__(self, to: Target) -> None:
        self.loop = asyncio.get_running_loop()
        self.channel = to.open_aio()
        self.registry = RegistryServiceStub(self.channel)
        self.status = TradeStatusServiceStub(self.channel)
        self.arbitration = ArbitrationServiceStub(self.channel)
        self.market = MarketDataServiceStub(self.channel)
        self.paper = PaperServiceStub(self.channel)
        self.admin = AdminServiceStub(self.channel)


class AsyncClient:
    """A client of one service, for one event loop.

    The channel is made at the first call, in the loop that runs then; a call from another loop is a RuntimeError.
    Each unary call has the deadline of timeouts.json unless `timeout_s` is given, is repeated on UNAVAILABLE by the
    shared retry policy, and raises an error of `dtms_client.errors`. An empty `account_id` means the only account.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str | None = None,
        token_file: Path | str | None = None,
        root_certificates: bytes | None = None,
    ) -> None:
        """Checks its arguments (see `_channel.target` for the errors) and connects to nothing yet."""
        self._target = target(address, token=token, token_file=token_file, root_certificates=root_certificates)
        self._deadlines = deadlines()
        self._open: _Open | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        self._opened()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Gives up what is under way and disconnects for good."""
        self._closed = True
        if self._open is not None:
            await self._open.channel.close()

    # ---- registry

    async def register_trade(
        self, registration: Registration, *, timeout_s: float | None = None
    ) -> RegisterTradeResponse:
        """Registers an open position. The same body again answers with the trade as it is.

        Raises AlreadyExists/TRADE_DIFFERS for another body under the same ticket, InvalidArgument for wrong fields.
        """
        request = RegisterTradeRequest(registration=registration)
        return await self._call(self._opened().registry.RegisterTrade, request, timeout_s)

    async def get_registration(
        self, ticket: int, *, account_id: str = "", timeout_s: float | None = None
    ) -> GetRegistrationResponse:
        """A trade as it was registered, and who owns it now."""
        request = GetRegistrationRequest(account_id=account_id, ticket=ticket)
        return await self._call(self._opened().registry.GetRegistration, request, timeout_s)

    async def list_registrations(
        self, *, account_id: str = "", include_closed: bool = False, timeout_s: float | None = None
    ) -> AsyncIterator[Registration]:
        """Registrations in order of registration, page by page as they are consumed; `timeout_s` is for each page."""
        page_token = ""
        while True:
            request = list_registrations_request(
                account_id=account_id, include_closed=include_closed, page_token=page_token
            )
            page = await self._call(self._opened().registry.ListRegistrations, request, timeout_s)
            for registration in page.registrations:
                yield registration
            page_token = page.next_page_token
            if not page_token:
                return

    async def unregister_trade(
        self, ticket: int, *, account_id: str = "", timeout_s: float | None = None
    ) -> UnregisterTradeResponse:
        """Takes a trade out of the registry; the position stays as it is."""
        request = UnregisterTradeRequest(account_id=account_id, ticket=ticket)
        return await self._call(self._opened().registry.UnregisterTrade, request, timeout_s)

    async def get_ownership(self, ticket: int, *, account_id: str = "", timeout_s: float | None = None) -> Ownership:
        """Who owns a trade, and since which grant. Raises NotFound."""
        request = GetOwnershipRequest(account_id=account_id, ticket=ticket)
        return (await self._call(self._opened().registry.GetOwnership, request, timeout_s)).ownership

    # ---- status

    async def get_trade(self, ticket: int, *, account_id: str = "", timeout_s: float | None = None) -> Trade:
        """One trade. Raises NotFound."""
        request = GetTradeRequest(account_id=account_id, ticket=ticket)
        return (await self._call(self._opened().status.GetTrade, request, timeout_s)).trade

    async def batch_get_trades(
        self, tickets: Sequence[int], *, account_id: str = "", timeout_s: float | None = None
    ) -> BatchGetTradesResponse:
        """At most 500 trades of one account; unknown tickets are named in the response."""
        request = BatchGetTradesRequest(account_id=account_id, tickets=tickets)
        return await self._call(self._opened().status.BatchGetTrades, request, timeout_s)

    async def list_trades(
        self, *, watch_filter: WatchFilter | None = None, include_closed: bool = False, timeout_s: float | None = None
    ) -> AsyncIterator[Trade]:
        """All matching trades in order of registration, page by page; `timeout_s` is for each page."""
        page_token = ""
        while True:
            request = list_trades_request(
                watch_filter=watch_filter, include_closed=include_closed, page_token=page_token
            )
            page = await self._call(self._opened().status.ListTrades, request, timeout_s)
            for trade in page.trades:
                yield trade
            page_token = page.next_page_token
            if not page_token:
                return

    async def get_score(
        self, symbol: str, side: Side.ValueType, *, account_id: str = "", timeout_s: float | None = None
    ) -> GetScoreResponse:
        """The score of a symbol from the side of a trade. Raises NotFound/SYMBOL_UNKNOWN."""
        request = GetScoreRequest(account_id=account_id, symbol=symbol, side=side)
        return await self._call(self._opened().status.GetScore, request, timeout_s)

    async def watch(
        self,
        *,
        start_revision: int = 0,
        snapshot: bool = False,
        watch_filter: WatchFilter | None = None,
        progress_interval_ms: int = DEFAULT_PROGRESS_MS,
    ) -> AsyncGenerator[WatchItem, None]:
        """Every matching event from `start_revision` on (0: from now on, or after the snapshot), for ever.

        Resumes by itself after an outage (`Interrupted` tells of it), also when the service falls silent for three
        progress intervals; a gap that cannot be closed is told by `Relisted`. Raises FUTURE_REVISION when the service
        knows less than was seen before, and what no repeat can mend.
        """
        cursor = Cursor(
            start_revision=start_revision,
            snapshot=snapshot,
            watch_filter=watch_filter,
            progress_interval_ms=progress_interval_ms,
        )
        backoff = Backoff()
        while True:
            error: DtmsError
            try:
                if not cursor.anchored:
                    cursor.anchor(await self._newest_revision())
                stubs = self._opened()
                call = stubs.status.Watch(cursor.request(), metadata=self._target.metadata)
                try:
                    while (response := await _next(call, cursor.silence_s)) is not None:
                        backoff.reset()
                        for item in cursor.take(response):
                            yield item
                finally:
                    call.cancel()
                error = ended(METHOD)
            except grpc.aio.AioRpcError as failure:
                error = from_rpc(failure, method=METHOD)
            except TimeoutError:
                error = silent(cursor.silence_s)
            except DtmsError as failure:
                error = failure
            cursor.broken(error)
            if isinstance(error, Compacted):
                backoff.reset()  # the service is there
            else:
                yield Interrupted(error)
            await asyncio.sleep(backoff.pause_s(error.retry_after_s))

    # ---- arbitration

    async def acquire_ownership(
        self, ticket: int, *, account_id: str = "", timeout_s: float | None = None
    ) -> AcquireOwnershipResponse:
        """Asks for a trade; a denial is data in the response."""
        request = AcquireOwnershipRequest(account_id=account_id, ticket=ticket)
        return await self._call(self._opened().arbitration.AcquireOwnership, request, timeout_s)

    async def renew_ownership(
        self, grants: Iterable[Grant], *, timeout_s: float | None = None
    ) -> RenewOwnershipResponse:
        """Keeps leases alive, at most 500; those that are lost are named in the response."""
        request = RenewOwnershipRequest(grants=grants)
        return await self._call(self._opened().arbitration.RenewOwnership, request, timeout_s)

    async def release_ownership(self, grant: Grant, *, timeout_s: float | None = None) -> Ownership:
        """Gives a trade back and says who owns it then. Raises StaleEpoch."""
        request = ReleaseOwnershipRequest(grant=grant)
        return (await self._call(self._opened().arbitration.ReleaseOwnership, request, timeout_s)).ownership

    async def propose(
        self,
        *,
        request_id: str,
        ticket: int,
        owner_epoch: int,
        action: Action,
        account_id: str = "",
        dry_run: bool = False,
        timeout_s: float | None = None,
    ) -> ProposeResponse:
        """Proposes one change; a denial is data in the response.

        After DeadlineExceeded or Unavailable the outcome is unknown: repeat with the same `request_id` and body, and
        the broker is called once at most. Raises StaleEpoch when the trade was granted anew since it was read.
        """
        request = ProposeRequest(
            request_id=request_id,
            account_id=account_id,
            ticket=ticket,
            owner_epoch=owner_epoch,
            action=action,
            dry_run=dry_run,
        )
        return await self._call(self._opened().arbitration.Propose, request, timeout_s)

    async def set_memo(
        self, ticket: int, memo: str, *, account_id: str = "", timeout_s: float | None = None
    ) -> SetMemoResponse:
        """Leaves a memo of at most 2048 characters on a trade, found again in `Trade.managers`; empty takes it away."""
        request = SetMemoRequest(account_id=account_id, ticket=ticket, memo=memo)
        return await self._call(self._opened().arbitration.SetMemo, request, timeout_s)

    async def explain(
        self,
        *,
        decision_id: int | None = None,
        request_id: str | None = None,
        revision: int | None = None,
        manager: str = "",
        timeout_s: float | None = None,
    ) -> ExplainResponse:
        """Why something was decided, by exactly one of the three keys."""
        request = explain_request(decision_id=decision_id, request_id=request_id, revision=revision, manager=manager)
        return await self._call(self._opened().arbitration.Explain, request, timeout_s)

    async def list_decisions(
        self,
        *,
        account_id: str = "",
        ticket: int = 0,
        manager: str = "",
        denied_only: bool = False,
        denial: DenialCode.ValueType = DENIAL_CODE_UNSPECIFIED,
        timeout_s: float | None = None,
    ) -> AsyncIterator[Decision]:
        """Decisions, newest first, page by page as they are consumed; `timeout_s` is for each page."""
        page_token = ""
        while True:
            request = list_decisions_request(
                account_id=account_id,
                ticket=ticket,
                manager=manager,
                denied_only=denied_only,
                denial=denial,
                page_token=page_token,
            )
            page = await self._call(self._opened().arbitration.ListDecisions, request, timeout_s)
            for decision in page.decisions:
                yield decision
            page_token = page.next_page_token
            if not page_token:
                return

    # ---- market data

    async def report_score(
        self, symbol: str, score: Score, *, valid_ms: int, account_id: str = "", timeout_s: float | None = None
    ) -> ReportScoreResponse:
        """Speaks for a symbol with a score for a BUY, for `valid_ms`."""
        request = ReportScoreRequest(account_id=account_id, symbol=symbol, score=score, valid_ms=valid_ms)
        return await self._call(self._opened().market.ReportScore, request, timeout_s)

    async def report_index(
        self, name: str, value: float, *, valid_ms: int, timeout_s: float | None = None
    ) -> ReportIndexResponse:
        """Reports a number of the market that is no price of a symbol here, such as VIX, for `valid_ms`."""
        request = ReportIndexRequest(name=name, value=value, valid_ms=valid_ms)
        return await self._call(self._opened().market.ReportIndex, request, timeout_s)

    async def watch_quotes(
        self, *, account_id: str = "", symbols: Sequence[str] = (), min_interval_ms: int = 0
    ) -> AsyncGenerator[Quotes | Interrupted, None]:
        """What changed since the item before: the latest quote of each symbol and report of each index, for ever.

        With `min_interval_ms` (up to 1000) items are at least so far apart, and what changed meanwhile comes together.

        Resumes by itself. Silence is no error here (markets close); a dead connection is found by keepalive.
        """
        request = WatchQuotesRequest(account_id=account_id, symbols=symbols, min_interval_ms=min_interval_ms)
        async for item in self._follow(QUOTES_METHOD, lambda: (self._opened().market.WatchQuotes, request)):
            if isinstance(item, Interrupted):
                yield item
            else:
                yield Quotes(tuple(item.quotes), tuple(item.indices))

    async def watch_bars(
        self,
        *,
        timeframes_s: Sequence[int],
        account_id: str = "",
        symbols: Sequence[str] = (),
        history: int = BARS_KEPT,
    ) -> AsyncGenerator[tuple[ClosedBar, ...] | Interrupted, None]:
        """First the last `history` closed bars of each symbol and length (60, 300, 900, 3600, 14400 s), then each one
        as it closes, for ever.

        Resumes by itself and never gives a bar twice; after an outage of more than 500 bars those between are missing.
        """
        cursor = BarCursor(account_id=account_id, symbols=symbols, timeframes_s=timeframes_s, history=history)
        async for item in self._follow(BARS_METHOD, lambda: (self._opened().market.WatchBars, cursor.request())):
            if isinstance(item, Interrupted):
                yield item
            elif bars := cursor.take(item):
                yield bars

    async def _follow(
        self,
        method: str,
        ask: Callable[[], tuple[grpc.aio.UnaryStreamMultiCallable[RequestT, ResponseT], RequestT]],
    ) -> AsyncGenerator[ResponseT | Interrupted, None]:
        """Responses of a stream that is opened again after every outage."""
        backoff = Backoff()
        while True:
            error: DtmsError
            rpc, request = ask()
            try:
                call = rpc(request, metadata=self._target.metadata)
                try:
                    async for response in call:
                        backoff.reset()
                        yield response
                finally:
                    call.cancel()
                error = ended(method)
            except grpc.aio.AioRpcError as failure:
                error = from_rpc(failure, method=method)
                if not isinstance(error, (*OUTAGE, Cancelled)):
                    raise error from failure
            yield Interrupted(error)
            await asyncio.sleep(backoff.pause_s(error.retry_after_s))

    # ---- admin

    async def system_status(self, *, timeout_s: float | None = None) -> GetSystemStatusResponse:
        """What runs, since when, and how it is."""
        return await self._call(self._opened().admin.GetSystemStatus, GetSystemStatusRequest(), timeout_s)

    async def set_risk_budget(
        self, ticket: int, budget_r: float, *, reason: str, account_id: str = "", timeout_s: float | None = None
    ) -> SetRiskBudgetResponse:
        """Sets how much the stops of a trade and its legs may lose together, 1 to 10 R. For operators."""
        request = SetRiskBudgetRequest(account_id=account_id, ticket=ticket, budget_r=budget_r, reason=reason)
        return await self._call(self._opened().admin.SetRiskBudget, request, timeout_s)

    async def set_trading_state(
        self, trading_state: TradingState.ValueType, *, reason: str, timeout_s: float | None = None
    ) -> SetTradingStateResponse:
        """ACTIVE, REDUCING or HALTED. For operators."""
        request = SetTradingStateRequest(trading_state=trading_state, reason=reason)
        return await self._call(self._opened().admin.SetTradingState, request, timeout_s)

    async def set_kill_switch(
        self,
        scope: KillScope.ValueType,
        value: str,
        *,
        engaged: bool,
        reason: str,
        flatten: bool = False,
        timeout_s: float | None = None,
    ) -> SetKillSwitchResponse:
        """Stops managers by account, symbol or name (`value`), or releases them; `flatten` closes the trades of the
        account or symbol at once. For operators."""
        request = SetKillSwitchRequest(scope=scope, value=value, engaged=engaged, reason=reason, flatten=flatten)
        return await self._call(self._opened().admin.SetKillSwitch, request, timeout_s)

    async def reload_configuration(
        self, *, reason: str, validate_only: bool = False, timeout_s: float | None = None
    ) -> ReloadConfigurationResponse:
        """Makes the service read configuration, tokens and certificates again; what changed, and what needs a restart.
        For operators."""
        request = ReloadConfigurationRequest(reason=reason, validate_only=validate_only)
        return await self._call(self._opened().admin.ReloadConfiguration, request, timeout_s)

    async def drain(self, *, reason: str, timeout_s: float | None = None) -> DrainResponse:
        """Ends the service in good order; the last revision that it wrote. For operators."""
        request = DrainRequest(reason=reason)
        return await self._call(self._opened().admin.Drain, request, timeout_s)

    async def backup(self) -> AsyncGenerator[BackupResponse, None]:
        """The pieces of a consistent copy of what the service has on disk, while it serves. For operators.

        Whole only if the last piece, which has a revision, came.
        """
        call = self._opened().admin.Backup(BackupRequest(), metadata=self._target.metadata)
        try:
            async for piece in call:
                yield piece
        except grpc.aio.AioRpcError as failure:
            raise from_rpc(failure, method=BACKUP_METHOD) from failure
        finally:
            call.cancel()

    # ---- orders by hand at the embedded paper account; elsewhere FailedPrecondition/MODE_UNSUPPORTED

    async def open_position(
        self,
        symbol: str,
        side: Side.ValueType,
        volume: float,
        *,
        sl: float | None = None,
        tp: float | None = None,
        account_id: str = "",
        timeout_s: float | None = None,
    ) -> OpenPositionResponse:
        """Opens at the market, in lots; refused orders are data in the response (`retcode`)."""
        request = OpenPositionRequest(account_id=account_id, symbol=symbol, side=side, volume=volume, sl=sl, tp=tp)
        return await self._call(self._opened().paper.OpenPosition, request, timeout_s)

    async def close_position(
        self, ticket: int, *, volume: float | None = None, account_id: str = "", timeout_s: float | None = None
    ) -> ClosePositionResponse:
        """Closes `volume` lots of a position, all of it where none is given, as somebody other than DTMS would."""
        request = ClosePositionRequest(account_id=account_id, ticket=ticket, volume=volume)
        return await self._call(self._opened().paper.ClosePosition, request, timeout_s)

    async def modify_position(
        self,
        ticket: int,
        *,
        sl: float | None,
        tp: float | None,
        account_id: str = "",
        timeout_s: float | None = None,
    ) -> ModifyPositionResponse:
        """Sets both levels of a position, None removes one, as somebody other than DTMS would."""
        request = ModifyPositionRequest(account_id=account_id, ticket=ticket, sl=sl, tp=tp)
        return await self._call(self._opened().paper.ModifyPosition, request, timeout_s)

    async def list_positions(
        self, *, account_id: str = "", timeout_s: float | None = None
    ) -> tuple[BrokerPosition, ...]:
        """Open positions by ticket, as the broker has them."""
        request = ListPositionsRequest(account_id=account_id)
        return tuple((await self._call(self._opened().paper.ListPositions, request, timeout_s)).positions)

    # ---- wiring

    @property
    def channel(self) -> grpc.aio.Channel:
        """The channel, for services that this client does not wrap; pass `metadata` with each call."""
        return self._opened().channel

    @property
    def metadata(self) -> Metadata:
        """The credential, as call metadata."""
        return self._target.metadata

    def _opened(self) -> _Open:
        if self._closed:
            raise closed()
        if self._open is None:
            self._open = _Open(self._target)
        elif self._open.loop is not asyncio.get_running_loop():
            raise RuntimeError("this client belongs to another event loop; make one for each loop")
        return self._open

    async def _newest_revision(self) -> int:
        request = ListTradesRequest(page_size=1)
        return (await self._call(self._opened().status.ListTrades, request, None)).revision

    async def _call(
        self,
        rpc: grpc.aio.UnaryUnaryMultiCallable[RequestT, ResponseT],
        request: RequestT,
        timeout_s: float | None,
    ) -> ResponseT:
        timeout = self._deadlines.of(request) if timeout_s is None else timeout_s
        try:
            return await rpc(request, timeout=timeout, metadata=self._target.metadata)
        except grpc.aio.AioRpcError as failure:
            raise from_rpc(failure, method=self._deadlines.method(request)) from failure


async def _next(call: grpc.aio.UnaryStreamCall[WatchRequest, WatchResponse], silence_s: float) -> WatchResponse | None:
    """The next response, None at the end of the stream; TimeoutError when it takes longer than `silence_s`."""
    async with asyncio.timeout(silence_s):
        response = await call.read()
    return response if isinstance(response, WatchResponse) else None
