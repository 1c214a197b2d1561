"""The client for threads. `dtms_client.aio` has the same methods for asyncio."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import grpc
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
)
from dtms.v1.trade_status_service_pb2_grpc import TradeStatusServiceStub
from dtms_client._channel import Backoff, Metadata, deadlines, target
from dtms_client._watchdog import Stream, Watchdog
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


class Client:
    """A client of one service; threads may share it.

    Make it after a fork, not before: gRPC does not survive one.
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
        self._channel = self._target.open()
        self._registry = RegistryServiceStub(self._channel)
        self._status = TradeStatusServiceStub(self._channel)
        self._arbitration = ArbitrationServiceStub(self._channel)
        self._market = MarketDataServiceStub(self._channel)
        self._paper = PaperServiceStub(self._channel)
        self._admin = AdminServiceStub(self._channel)
        self._closed = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Gives up what is under way and disconnects for good."""
        self._closed.set()
        self._channel.close()

    # ---- registry

    def register_trade(self, registration: Registration, *, timeout_s: float | None = None) -> RegisterTradeResponse:
        """Registers an open position. The same body again answers with the trade as it is.

        Raises AlreadyExists/TRADE_DIFFERS for another body under the same ticket, InvalidArgument for wrong fields.
        """
        request = RegisterTradeRequest(registration=registration)
        return self._call(self._registry.RegisterTrade, request, timeout_s)

    def get_registration(
        self, ticket: int, *, account_id: str = "", timeout_s: float | None = None
    ) -> GetRegistrationResponse:
        """A trade as it was registered, and who owns it now."""
        request = GetRegistrationRequest(account_id=account_id, ticket=ticket)
        return self._call(self._registry.GetRegistration, request, timeout_s)

    def list_registrations(
        self, *, account_id: str = "", include_closed: bool = False, timeout_s: float | None = None
    ) -> Iterator[Registration]:
        """Registrations in order of registration, page by page as they are consumed; `timeout_s` is for each page."""
        page_token = ""
        while True:
            request = list_registrations_request(
                account_id=account_id, include_closed=include_closed, page_token=page_token
            )
            page = self._call(self._registry.ListRegistrations, request, timeout_s)
            yield from page.registrations
            page_token = page.next_page_token
            if not page_token:
                return

    def unregister_trade(
        self, ticket: int, *, account_id: str = "", timeout_s: float | None = None
    ) -> UnregisterTradeResponse:
        """Takes a trade out of the registry; the position stays as it is."""
        request = UnregisterTradeRequest(account_id=account_id, ticket=ticket)
        return self._call(self._registry.UnregisterTrade, request, timeout_s)

    def get_ownership(self, ticket: int, *, account_id: str = "", timeout_s: float | None = None) -> Ownership:
        """Who owns a trade, and since which grant. Raises NotFound."""
        request = GetOwnershipRequest(account_id=account_id, ticket=ticket)
        return self._call(self._registry.GetOwnership, request, timeout_s).ownership

    # ---- status

    def get_trade(self, ticket: int, *, account_id: str = "", timeout_s: float | None = None) -> Trade:
        """One trade. Raises NotFound."""
        request = GetTradeRequest(account_id=account_id, ticket=ticket)
        return self._call(self._status.GetTrade, request, timeout_s).trade

    def batch_get_trades(
        self, tickets: Sequence[int], *, account_id: str = "", timeout_s: float | None = None
    ) -> BatchGetTradesResponse:
        """At most 500 trades of one account; unknown tickets are named in the response."""
        request = BatchGetTradesRequest(account_id=account_id, tickets=tickets)
        return self._call(self._status.BatchGetTrades, request, timeout_s)

    def list_trades(
        self, *, watch_filter: WatchFilter | None = None, include_closed: bool = False, timeout_s: float | None = None
    ) -> Iterator[Trade]:
        """All matching trades in order of registration, page by page; `timeout_s` is for each page."""
        page_token = ""
        while True:
            request = list_trades_request(
                watch_filter=watch_filter, include_closed=include_closed, page_token=page_token
            )
            page = self._call(self._status.ListTrades, request, timeout_s)
            yield from page.trades
            page_token = page.next_page_token
            if not page_token:
                return

    def get_score(
        self, symbol: str, side: Side.ValueType, *, account_id: str = "", timeout_s: float | None = None
    ) -> GetScoreResponse:
        """The score of a symbol from the side of a trade. Raises NotFound/SYMBOL_UNKNOWN."""
        request = GetScoreRequest(account_id=account_id, symbol=symbol, side=side)
        return self._call(self._status.GetScore, request, timeout_s)

    def watch(
        self,
        *,
        start_revision: int = 0,
        snapshot: bool = False,
        watch_filter: WatchFilter | None = None,
        progress_interval_ms: int = DEFAULT_PROGRESS_MS,
    ) -> Generator[WatchItem, None, None]:
        """Every matching event from `start_revision` on (0: from now on, or after the snapshot), until the client
        is closed.

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
        while not self._closed.is_set():
            error: DtmsError
            guard: Watchdog | None = None
            try:
                if not cursor.anchored:
                    cursor.anchor(self._newest_revision())
                stream = self._stream(self._status.Watch, cursor.request())
                guard = Watchdog(stream, cursor.silence_s)
                for response in guard.responses():
                    backoff.reset()
                    yield from cursor.take(response)
                error = ended(METHOD)
            except grpc.RpcError as failure:
                fired = guard is not None and guard.fired
                error = silent(cursor.silence_s) if fired else from_rpc(failure, method=METHOD)
            except DtmsError as failure:
                error = failure
            finally:
                if guard is not None:
                    guard.stop()
            if self._closed.is_set():
                return
            cursor.broken(error)
            if isinstance(error, Compacted):
                backoff.reset()  # the service is there
            else:
                yield Interrupted(error)
            self._closed.wait(backoff.pause_s(error.retry_after_s))

    # ---- arbitration

    def acquire_ownership(
        self, ticket: int, *, account_id: str = "", timeout_s: float | None = None
    ) -> AcquireOwnershipResponse:
        """Asks for a trade; a denial is data in the response."""
        request = AcquireOwnershipRequest(account_id=account_id, ticket=ticket)
        return self._call(self._arbitration.AcquireOwnership, request, timeout_s)

    def renew_ownership(self, grants: Iterable[Grant], *, timeout_s: float | None = None) -> RenewOwnershipResponse:
        """Keeps leases alive, at most 500; those that are lost are named in the response."""
        request = RenewOwnershipRequest(grants=grants)
        return self._call(self._arbitration.RenewOwnership, request, timeout_s)

    def release_ownership(self, grant: Grant, *, timeout_s: float | None = None) -> Ownership:
        """Gives a trade back and says who owns it then. Raises StaleEpoch."""
        request = ReleaseOwnershipRequest(grant=grant)
        return self._call(self._arbitration.ReleaseOwnership, request, timeout_s).ownership

    def propose(
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
        return self._call(self._arbitration.Propose, request, timeout_s)

    def set_memo(
        self, ticket: int, memo: str, *, account_id: str = "", timeout_s: float | None = None
    ) -> SetMemoResponse:
        """Leaves a memo of at most 2048 characters on a trade, found again in `Trade.managers`; empty takes it away."""
        request = SetMemoRequest(account_id=account_id, ticket=ticket, memo=memo)
        return self._call(self._arbitration.SetMemo, request, timeout_s)

    def explain(
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
        return self._call(self._arbitration.Explain, request, timeout_s)

    def list_decisions(
        self,
        *,
        account_id: str = "",
        ticket: int = 0,
        manager: str = "",
        denied_only: bool = False,
        denial: DenialCode.ValueType = DENIAL_CODE_UNSPECIFIED,
        timeout_s: float | None = None,
    ) -> Iterator[Decision]:
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
            page = self._call(self._arbitration.ListDecisions, request, timeout_s)
            yield from page.decisions
            page_token = page.next_page_token
            if not page_token:
                return

    # ---- market data

    def report_score(
        self, symbol: str, score: Score, *, valid_ms: int, account_id: str = "", timeout_s: float | None = None
    ) -> ReportScoreResponse:
        """Speaks for a symbol with a score for a BUY, for `valid_ms`."""
        request = ReportScoreRequest(account_id=account_id, symbol=symbol, score=score, valid_ms=valid_ms)
        return self._call(self._market.ReportScore, request, timeout_s)

    def report_index(
        self, name: str, value: float, *, valid_ms: int, timeout_s: float | None = None
    ) -> ReportIndexResponse:
        """Reports a number of the market that is no price of a symbol here, such as VIX, for `valid_ms`."""
        request = ReportIndexRequest(name=name, value=value, valid_ms=valid_ms)
        return self._call(self._market.ReportIndex, request, timeout_s)

    def watch_quotes(
        self, *, account_id: str = "", symbols: Sequence[str] = (), min_interval_ms: int = 0
    ) -> Generator[Quotes | Interrupted, None, None]:
        """What changed since the item before: the latest quote of each symbol and report of each index.

        With `min_interval_ms` (up to 1000) items are at least so far apart, and what changed meanwhile comes together.

        Resumes by itself. Silence is no error here (markets close); a dead connection is found by keepalive.
        """
        request = WatchQuotesRequest(account_id=account_id, symbols=symbols, min_interval_ms=min_interval_ms)
        for item in self._follow(QUOTES_METHOD, lambda: (self._market.WatchQuotes, request)):
            if isinstance(item, Interrupted):
                yield item
            else:
                yield Quotes(tuple(item.quotes), tuple(item.indices))

    def watch_bars(
        self,
        *,
        timeframes_s: Sequence[int],
        account_id: str = "",
        symbols: Sequence[str] = (),
        history: int = BARS_KEPT,
    ) -> Generator[tuple[ClosedBar, ...] | Interrupted, None, None]:
        """First the last `history` closed bars of each symbol and length (60, 300, 900, 3600, 14400 s), then each one
        as it closes, until the client is closed.

        Resumes by itself and never gives a bar twice; after an outage of more than 500 bars those between are missing.
        """
        cursor = BarCursor(account_id=account_id, symbols=symbols, timeframes_s=timeframes_s, history=history)
        for item in self._follow(BARS_METHOD, lambda: (self._market.WatchBars, cursor.request())):
            if isinstance(item, Interrupted):
                yield item
            elif bars := cursor.take(item):
                yield bars

    def _follow(
        self, method: str, ask: Callable[[], tuple[grpc.UnaryStreamMultiCallable[RequestT, ResponseT], RequestT]]
    ) -> Generator[ResponseT | Interrupted, None, None]:
        """Responses of a stream that is opened again after every outage, until the client is closed."""
        backoff = Backoff()
        while not self._closed.is_set():
            error: DtmsError
            try:
                stream = self._stream(*ask())
            except Cancelled:
                return
            try:
                for response in stream:
                    backoff.reset()
                    yield response
                error = ended(method)
            except grpc.RpcError as failure:
                error = from_rpc(failure, method=method)
                if not isinstance(error, (*OUTAGE, Cancelled)):
                    raise error from failure
            finally:
                stream.cancel()
            if self._closed.is_set():
                return
            yield Interrupted(error)
            self._closed.wait(backoff.pause_s(error.retry_after_s))

    # ---- admin

    def system_status(self, *, timeout_s: float | None = None) -> GetSystemStatusResponse:
        """What runs, since when, and how it is."""
        return self._call(self._admin.GetSystemStatus, GetSystemStatusRequest(), timeout_s)

    def set_risk_budget(
        self, ticket: int, budget_r: float, *, reason: str, account_id: str = "", timeout_s: float | None = None
    ) -> SetRiskBudgetResponse:
        """Sets how much the stops of a trade and its legs may lose together, 1 to 10 R. For operators."""
        request = SetRiskBudgetRequest(account_id=account_id, ticket=ticket, budget_r=budget_r, reason=reason)
        return self._call(self._admin.SetRiskBudget, request, timeout_s)

    def set_trading_state(
        self, trading_state: TradingState.ValueType, *, reason: str, timeout_s: float | None = None
    ) -> SetTradingStateResponse:
        """ACTIVE, REDUCING or HALTED. For operators."""
        request = SetTradingStateRequest(trading_state=trading_state, reason=reason)
        return self._call(self._admin.SetTradingState, request, timeout_s)

    def set_kill_switch(
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
        return self._call(self._admin.SetKillSwitch, request, timeout_s)

    def reload_configuration(
        self, *, reason: str, validate_only: bool = False, timeout_s: float | None = None
    ) -> ReloadConfigurationResponse:
        """Makes the service read configuration, tokens and certificates again; what changed, and what needs a restart.
        For operators."""
        request = ReloadConfigurationRequest(reason=reason, validate_only=validate_only)
        return self._call(self._admin.ReloadConfiguration, request, timeout_s)

    def drain(self, *, reason: str, timeout_s: float | None = None) -> DrainResponse:
        """Ends the service in good order; the last revision that it wrote. For operators."""
        request = DrainRequest(reason=reason)
        return self._call(self._admin.Drain, request, timeout_s)

    def backup(self) -> Generator[BackupResponse, None, None]:
        """The pieces of a consistent copy of what the service has on disk, while it serves. For operators.

        Whole only if the last piece, which has a revision, came.
        """
        request = BackupRequest()
        stream = self._stream(self._admin.Backup, request)
        try:
            yield from stream
        except grpc.RpcError as failure:
            raise from_rpc(failure, method=BACKUP_METHOD) from failure
        finally:
            stream.cancel()

    # ---- orders by hand at the embedded paper account; elsewhere FailedPrecondition/MODE_UNSUPPORTED

    def open_position(
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
        return self._call(self._paper.OpenPosition, request, timeout_s)

    def close_position(
        self, ticket: int, *, volume: float | None = None, account_id: str = "", timeout_s: float | None = None
    ) -> ClosePositionResponse:
        """Closes `volume` lots of a position, all of it where none is given, as somebody other than DTMS would."""
        request = ClosePositionRequest(account_id=account_id, ticket=ticket, volume=volume)
        return self._call(self._paper.ClosePosition, request, timeout_s)

    def modify_position(
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
        return self._call(self._paper.ModifyPosition, request, timeout_s)

    def list_positions(self, *, account_id: str = "", timeout_s: float | None = None) -> tuple[BrokerPosition, ...]:
        """Open positions by ticket, as the broker has them."""
        request = ListPositionsRequest(account_id=account_id)
        return tuple(self._call(self._paper.ListPositions, request, timeout_s).positions)

    # ---- wiring

    @property
    def channel(self) -> grpc.Channel:
        """The channel, for services that this client does not wrap; pass `metadata` with each call."""
        return self._channel

    @property
    def metadata(self) -> Metadata:
        """The credential, as call metadata."""
        return self._target.metadata

    def _newest_revision(self) -> int:
        request = ListTradesRequest(page_size=1)
        return self._call(self._status.ListTrades, request, None).revision

    def _call(
        self,
        rpc: grpc.UnaryUnaryMultiCallable[RequestT, ResponseT],
        request: RequestT,
        timeout_s: float | None,
    ) -> ResponseT:
        timeout = self._deadlines.of(request) if timeout_s is None else timeout_s
        try:
            return rpc(request, timeout=timeout, metadata=self._target.metadata)
        except grpc.RpcError as failure:
            raise from_rpc(failure, method=self._deadlines.method(request)) from failure
        except ValueError as failure:
            raise self._refused(failure) from failure

    def _stream(self, rpc: grpc.UnaryStreamMultiCallable[RequestT, ResponseT], request: RequestT) -> Stream[ResponseT]:
        try:
            return rpc(request, metadata=self._target.metadata)
        except ValueError as failure:
            raise self._refused(failure) from failure

    def _refused(self, failure: ValueError) -> Exception:
        """gRPC has only a ValueError to say that the channel is closed."""
        return closed() if self._closed.is_set() else failure
