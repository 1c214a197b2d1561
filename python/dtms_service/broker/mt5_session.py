"""The MetaTrader 5 terminal as the thread that owns its package sees it: synchronous, one account, nothing assumed.

Every answer of None is a failure with the cause that ``last_error`` names in the same step; it never means "none". A
broken pipe does not mend by itself: the next step opens it again. Before anything is read or sent the terminal is asked
whether it is the right one, logged in to the right account, and linked to its server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from dtms_service.bars import ClosedBar
from dtms_service.broker.door import (
    AccountInfo,
    BrokerUnavailable,
    ClosingDeal,
    Command,
    CommandKind,
    OrderFate,
    OrderRecord,
    Outcome,
    OutcomeStatus,
    Position,
    SymbolSpec,
)
from dtms_service.broker.fence import Fence
from dtms_service.broker.mt5_bars import LENGTHS_S, closed_bars, length_to_read
from dtms_service.broker.mt5_enums import DealEntry, MarginMode, OrderState
from dtms_service.broker.mt5_inferences import PLACED_SETTLES_MS, close_reason, same_terminal
from dtms_service.broker.mt5_orders import (
    LOT_DIGITS,
    Quoted,
    Request,
    close_refusal,
    close_request,
    modify_refusal,
    modify_request,
    open_refusal,
    open_request,
    side_of,
)
from dtms_service.broker.mt5_package import COPY_TICKS_INFO, Load, TickRow
from dtms_service.broker.mt5_prices import Look, Prices, RowsFrom
from dtms_service.broker.mt5_thread import Wanted
from dtms_service.broker.outcomes import NO_ECHO, STALE_TOKEN, UNSENT, status_of
from dtms_service.broker.retcodes import COMMENTS, LastError, Retcode
from dtms_service.broker.server_time import OffsetUnknown, ServerTime
from dtms_service.broker.structs import (
    Mt5AccountInfo,
    OrderSendResult,
    SymbolInfo,
    TradeDeal,
    TradeOrder,
    TradePosition,
)
from dtms_service.fault_points import Point, reach

T = TypeVar("T")

NOT_WANTED: Final = "NOT_WANTED"

_PIPE_BROKEN: Final = frozenset(code for code in LastError if code <= LastError.INTERNAL_FAIL)


@dataclass(frozen=True, slots=True)
class Login:
    """How a terminal is opened. ``account_id`` is login@server, the one account that this gateway serves.

    ``terminal`` is the executable (one of several on the machine); ``password`` only where the terminal has none saved.
    """

    account_id: str
    terminal: str | None = None
    password: str | None = None
    timeout_ms: int = 60_000


@dataclass(frozen=True, slots=True)
class Health:
    """A look at the terminal and its account. ``linked``: the terminal has its server; the switches let orders pass."""

    path: str
    build: int
    linked: bool
    terminal_trades: bool
    account_trades: bool
    experts_trade: bool
    hedging: bool
    ping_ms: int
    offset_s: int | None


class OtherAccount(BrokerUnavailable):
    """The terminal is logged in to an account that is not this gateway's. What it shows is nobody's business here."""

    def __init__(self, operation: str, text: str, shown: str) -> None:
        super().__init__(operation, LastError.AUTH_FAILED, text)
        self.shown = shown


class Failure(Exception):
    """A call of the package that failed; ``code`` is of last_error(), or a retcode of the trade server."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code, self.text = code, text


class WrongLogin(Failure):
    """Another account answers."""

    def __init__(self, shown: str, wanted: str) -> None:
        super().__init__(LastError.AUTH_FAILED, f"the terminal is logged in to {shown}, not {wanted}")
        self.shown = shown


class Mt5Session:
    """Used from one thread. ``now_msc`` is UTC."""

    def __init__(self, load: Load, login: Login, time: ServerTime, fence: Fence, now_msc: Callable[[], int]) -> None:
        self._load, self._login, self._fence, self._now_msc = load, login, fence, now_msc
        self._mt5 = load()
        self.time, self.prices = time, Prices(time, now_msc)
        self._open = False
        self._path: str | None = None  # of the terminal that was opened first: it stays that one
        self._placed: dict[int, int] = {}  # order -> until when (ms UTC) it may still be on its way

    # --- the terminal -------------------------------------------------------------------------------------------------

    def _call(self, answer: T | None) -> T:
        """The answer of a call, or the Failure that ``last_error`` names for it."""
        if answer is None or answer is False:
            raise self._failure()
        return answer

    def _failure(self) -> Failure:
        code, text = self._mt5.last_error()
        if code in _PIPE_BROKEN:
            self._open = False
        return Failure(int(code), str(text))

    def close(self) -> None:
        """Close the pipe and the fence."""
        if self._open:
            self._open = False
            self._mt5.shutdown()
        self._fence.close()

    @contextmanager
    def _bridged(self) -> Iterator[None]:
        """A bridge to a terminal elsewhere may raise where the package answers None. Raises Failure."""
        try:
            yield
        except (OSError, EOFError) as error:
            self._open = False
            raise Failure(LastError.INTERNAL_FAIL, f"{type(error).__name__}: {error}") from error

    def _initialize(self) -> None:
        self._mt5 = self._load()
        login, _, server = self._login.account_id.partition("@")
        options: dict[str, object] = {"login": int(login), "server": server, "timeout": self._login.timeout_ms}
        if self._login.password is not None:
            options["password"] = self._login.password
        path = () if self._login.terminal is None else (self._login.terminal,)
        self._call(self._mt5.initialize(*path, **options))
        self._open = True

    def reach(self) -> tuple[Health, Mt5AccountInfo]:
        """Open the pipe if it is not, and see who is at its other end. Raises Failure, also for another account."""
        if not self._open:
            self._initialize()
        terminal = self._call(self._mt5.terminal_info())
        account = self._call(self._mt5.account_info())
        self._require_own(account)
        first = self._path is None
        wrong = (
            self._login.terminal is not None and not same_terminal(self._login.terminal, terminal.path)
            if first
            else terminal.path != self._path
        )
        if wrong:
            self._open = False
            asked = self._login.terminal if first else self._path
            raise Failure(LastError.INTERNAL_FAIL_INIT, f"another terminal answers: {terminal.path}, not {asked}")
        self._path = terminal.path
        health = Health(
            path=terminal.path,
            build=terminal.build,
            linked=bool(terminal.connected),
            terminal_trades=bool(terminal.trade_allowed) and not terminal.tradeapi_disabled,
            account_trades=bool(account.trade_allowed),
            experts_trade=bool(account.trade_expert),
            hedging=account.margin_mode == MarginMode.RETAIL_HEDGING,
            ping_ms=int(terminal.ping_last) // 1000,
            offset_s=self.time.offset_s,
        )
        return health, account

    def _require_own(self, account: Mt5AccountInfo) -> None:
        """Raises WrongLogin."""
        shown = f"{account.login}@{account.server}"
        if shown != self._login.account_id:
            raise WrongLogin(shown, self._login.account_id)

    def _linked(self) -> Mt5AccountInfo:
        """For reads: without its server a terminal answers with what it saw last. Raises Failure."""
        health, account = self.reach()
        if not health.linked:
            raise Failure(Retcode.CONNECTION, COMMENTS[Retcode.CONNECTION])
        return account

    # --- queries ------------------------------------------------------------------------------------------------------

    def query(self, operation: str, account_id: str, read: Callable[[], T]) -> T:
        """What ``read`` gives. Raises BrokerUnavailable where it, or the terminal, fails.

        Whose answer it is, is asked before and behind it: a hand may have switched the account meanwhile.
        """
        if account_id != self._login.account_id:
            raise BrokerUnavailable(operation, LastError.AUTH_FAILED, f"no account {account_id}")
        try:
            with self._bridged():
                answer = read()
                if self._open:
                    self._require_own(self._call(self._mt5.account_info()))
                return answer
        except WrongLogin as error:
            raise OtherAccount(operation, error.text, error.shown) from error
        except Failure as error:
            raise BrokerUnavailable(operation, error.code, error.text) from error
        except OffsetUnknown as error:
            raise BrokerUnavailable(operation, LastError.FAIL, str(error)) from error

    def health(self) -> Health:
        return self.reach()[0]

    def account(self) -> AccountInfo:
        return self._account(self._linked())

    def _account(self, shown: Mt5AccountInfo) -> AccountInfo:
        return AccountInfo(
            account_id=self._login.account_id,
            hedging=shown.margin_mode == MarginMode.RETAIL_HEDGING,
            currency=shown.currency,
            leverage=int(shown.leverage),
            balance=shown.balance,
            equity=shown.equity,
            margin=shown.margin,
            margin_free=shown.margin_free,
        )

    def symbol(self, name: str) -> SymbolSpec:
        """KeyError if there is no such symbol. One outside of the Market Watch is put there: it has no ticks else."""
        self._linked()
        info = self._symbol_info(name)
        if info is None:
            raise KeyError(name)
        if not info.select:
            self._call(self._mt5.symbol_select(name, True))
        return SymbolSpec(
            name=info.name,
            digits=int(info.digits),
            point=info.point,
            tick_size=info.trade_tick_size or info.point,
            contract_size=info.trade_contract_size,
            volume_min=info.volume_min,
            volume_max=info.volume_max,
            volume_step=info.volume_step,
            stops_level=int(info.trade_stops_level),
            freeze_level=int(info.trade_freeze_level),
            currency_profit=info.currency_profit,
        )

    def positions(self) -> list[Position]:
        self._linked()
        self._await_placed()
        return [self._position(held) for held in self._call(self._mt5.positions_get())]

    def _await_placed(self) -> None:
        """Positions tell nothing of an order that the server has accepted and not yet executed. Raises Failure."""
        for order, until_msc in list(self._placed.items()):
            if self._now_msc() >= until_msc or not self._call(self._mt5.orders_get(ticket=order)):
                del self._placed[order]
                continue
            raise Failure(Retcode.PLACED, f"order {order} is accepted and not executed yet")

    def closing_deals(self, position: int) -> list[ClosingDeal]:
        """Oldest first. A history that lacks the deals that opened the position proves nothing: Failure.

        A netting position keeps its identifier when it is reversed, and gets another ticket: that of the order.
        """
        self._linked()
        held, of, made = 0.0, self._identifier_of(position), list[ClosingDeal]()
        deals = self._call(self._mt5.history_deals_get(position=of))
        for deal in sorted(deals, key=lambda deal: (deal.time_msc, deal.ticket)):
            if deal.entry == DealEntry.IN:
                held = round(held + deal.volume, LOT_DIGITS)
                continue
            if held <= 0:
                raise Failure(LastError.FAIL, f"the history of position {position} is not complete")
            taken = min(deal.volume, held)
            if of == position:
                made.append(self._closing(deal, taken, round(held - taken, LOT_DIGITS)))
            held = round(held - taken, LOT_DIGITS)
            if deal.entry == DealEntry.INOUT:
                # What it did not take opened the other side.
                held, of = round(deal.volume - taken, LOT_DIGITS), int(deal.order)
        return made

    def _identifier_of(self, ticket: int) -> int:
        """The position's own; that of an order that reversed one is another's. Raises Failure."""
        orders = self._call(self._mt5.history_orders_get(ticket=int(ticket)))
        return int(orders[0].position_id) if orders else int(ticket)

    def orders(self, comment: str, since_msc: int) -> list[OrderRecord]:
        """Orders with that comment, oldest first. One that was filled and has no deals yet proves nothing: Failure."""
        self._linked()
        from_s, to_s = self.time.period(since_msc, self._now_msc())
        working = {int(order.ticket) for order in self._call(self._mt5.orders_get()) if order.comment == comment}
        past = [
            order
            for order in self._call(self._mt5.history_orders_get(from_s, to_s))
            if order.comment == comment and int(order.ticket) not in working
        ]
        deals = self._call(self._mt5.history_deals_get(from_s, to_s)) if past else ()
        made = [OrderRecord(ticket, 0, OrderFate.WORKING, 0.0, 0.0, 0, since_msc) for ticket in working]
        made += [self._order(order, [deal for deal in deals if deal.order == order.ticket]) for order in past]
        return sorted(made, key=lambda order: order.order)

    def _order(self, order: TradeOrder, deals: Sequence[TradeDeal]) -> OrderRecord:
        """An order of the history. Raises Failure."""
        volume = round(sum(deal.volume for deal in deals), LOT_DIGITS)
        if not deals and order.state in {OrderState.FILLED, OrderState.PARTIAL}:
            raise Failure(LastError.FAIL, f"order {order.ticket} was filled, and the history lacks its deals")
        return OrderRecord(
            order=int(order.ticket),
            position=int(order.position_id),
            fate=OrderFate.FILLED if deals else OrderFate.DROPPED,
            volume=volume,
            price=sum(deal.volume * deal.price for deal in deals) / volume if volume else 0.0,
            deal=max((int(deal.ticket) for deal in deals), default=0),
            time_msc=self.time.to_utc_msc(int(order.time_done_msc)),
        )

    def _closing(self, deal: TradeDeal, taken: float, remaining: float) -> ClosingDeal:
        return ClosingDeal(
            deal=int(deal.ticket),
            position=int(deal.position_id),
            symbol=deal.symbol,
            reason=close_reason(int(deal.reason)),
            volume=taken,
            price=deal.price,
            profit=deal.profit,
            commission=deal.commission + deal.fee,
            swap=deal.swap,
            time_msc=self.time.to_utc_msc(int(deal.time_msc)),
            comment=deal.comment,
            remaining=remaining,
        )

    def _position(self, held: TradePosition) -> Position:
        return Position(
            ticket=int(held.ticket),
            symbol=held.symbol,
            side=side_of(held),
            volume=held.volume,
            price_open=held.price_open,
            sl=held.sl or None,
            tp=held.tp or None,
            time_msc=self.time.to_utc_msc(int(held.time_msc)),
            magic=int(held.magic),
            comment=held.comment,
            profit=held.profit,
            swap=held.swap,
        )

    def _symbol_info(self, name: str) -> SymbolInfo | None:
        """None for a symbol that the broker does not have; a failed call is a Failure."""
        info = self._mt5.symbol_info(name)
        if info is not None:
            return info
        failure = self._failure()
        if failure.code == LastError.NOT_FOUND:
            return None
        raise failure

    # --- prices ------------------------------------------------------------------------------------------------------

    def observe(self, symbols: Sequence[str]) -> int | None:
        """Watch the symbols' ticks for the server's time; its offset, s, once it is known."""
        self._linked()
        for symbol in symbols:
            self._newest(symbol)
        return self.time.offset_s

    def look(self, symbols: Sequence[str]) -> Look:
        """All or nothing: where a part fails, the next look takes the ticks of this one too."""
        account = self._linked()
        positions: list[Position] | None = None
        found = {symbol: self.prices.take(symbol, self._newest(symbol), self._rows_of(symbol)) for symbol in symbols}
        try:
            self._await_placed()
        except Failure as error:
            if error.code != Retcode.PLACED:
                raise
        else:
            positions = [self._position(held) for held in self._call(self._mt5.positions_get())]
            self.prices.count_changes(positions)
        self.prices.taken({symbol: cursor for symbol, (_, cursor) in found.items()})
        ticks = {symbol: prices for symbol, (prices, _) in found.items() if prices}
        return Look(ticks, self.prices.change_count, positions, self._account(account))

    def past_bars(self, symbol: str, timeframe_s: int, count: int) -> list[ClosedBar]:
        """The last closed bars, at most ``count``. Raises KeyError for a length that no terminal has."""
        self._linked()
        read_s = length_to_read(timeframe_s, self.time)
        share = timeframe_s // read_s
        # One that forms, and up to one whole longer bar that has lost its beginning.
        rows = self._call(self._mt5.copy_rates_from_pos(symbol, LENGTHS_S[read_s], 0, (count + 1) * share + 1))
        return closed_bars(rows, read_s, timeframe_s, self.time, self._now_msc())[-count:]

    def _newest(self, symbol: str) -> int:
        """Time of the last tick, ms server time; 0 without one."""
        newest_msc = int(self._call(self._mt5.symbol_info_tick(symbol)).time_msc)
        self.prices.observe(symbol, newest_msc)
        return newest_msc

    def _rows_of(self, symbol: str) -> RowsFrom:
        def rows_from(from_s: int, count: int) -> Iterable[TickRow]:
            return self._call(self._mt5.copy_ticks_from(symbol, from_s, count, COPY_TICKS_INFO))

        return rows_from

    # --- commands -----------------------------------------------------------------------------------------------------

    def execute(self, command: Command, wanted: Wanted) -> Outcome:
        """Fence, look, send once, look again: one step. Never sends twice, and never after its caller has gone."""
        if not self._fence.admit(command.account_id, command.ticket, command.token):
            return Outcome(OutcomeStatus.REJECTED, 0, STALE_TOKEN)
        try:
            with self._bridged():
                return self._carry_out(command, wanted)
        except Failure as error:
            status = OutcomeStatus.REJECTED if error.code in UNSENT else OutcomeStatus.UNKNOWN
            return Outcome(status, error.code, error.text)

    def _carry_out(self, command: Command, wanted: Wanted) -> Outcome:
        """Raises Failure where nothing is known of the command."""
        health, account = self.reach()
        if not health.linked:
            return _refused(Retcode.CONNECTION)
        hedging = account.margin_mode == MarginMode.RETAIL_HEDGING
        request = self._request(command, hedging=hedging)
        if isinstance(request, Retcode):
            return _refused(request)
        if not wanted():
            return Outcome(OutcomeStatus.REJECTED, 0, NOT_WANTED)
        reach(Point.ORDER_SEND)
        self.prices.expect_change()
        result = self._mt5.order_send(request)
        reach(Point.ORDER_SENT)
        if result is None:
            raise self._failure()
        return self._outcome(command, result, hedging=hedging)

    def _request(self, command: Command, *, hedging: bool) -> Request | Retcode:
        """The request, or the retcode that the server would refuse it with. Raises Failure."""
        info = self._symbol_info(command.symbol)
        if info is None:
            return Retcode.INVALID
        tick = self._call(self._mt5.symbol_info_tick(command.symbol))
        quoted = Quoted(info, tick.bid, tick.ask)
        held = self._held(command.position) if command.kind is not CommandKind.OPEN else None
        has_quote = tick.bid > 0
        match command.kind:
            case CommandKind.MODIFY:
                if held is None:
                    return modify_request(command, quoted)
                whole = command.kept(held.sl or None, held.tp or None)
                refusal = modify_refusal(whole, quoted, held) if has_quote else None
                return refusal or modify_request(whole, quoted)
            case CommandKind.CLOSE:
                refusal = close_refusal(quoted, held) if held is not None and has_quote else None
                return refusal or close_request(command, quoted, held)
            case CommandKind.OPEN:
                # On a netting account the order may reduce the position, and then its levels do not count.
                refusal = open_refusal(command, quoted) if hedging and has_quote else None
                return refusal or open_request(command, quoted)

    def _held(self, ticket: int) -> TradePosition | None:
        return next(iter(self._call(self._mt5.positions_get(ticket=int(ticket)))), None)

    def _outcome(self, command: Command, result: OrderSendResult, *, hedging: bool) -> Outcome:
        """The result with the levels that the broker shows afterwards, never those that were asked for."""
        status, comment = status_of(command.kind, result.retcode), result.comment
        if result.retcode == Retcode.PLACED and result.order:
            self._placed[int(result.order)] = self._now_msc() + PLACED_SETTLES_MS
        echo = None
        if status is OutcomeStatus.CONFIRMED:
            try:
                with self._bridged():
                    echo = self._echo(command, result, hedging=hedging)
            except Failure as error:
                if error.code == LastError.AUTH_FAILED:
                    raise  # whichever account the order went to, it may not have been this one
            if command.kind is CommandKind.MODIFY and echo is None:
                status, comment = OutcomeStatus.UNKNOWN, NO_ECHO
        return Outcome(
            status=status,
            retcode=int(result.retcode),
            comment=comment,
            order=int(result.order),
            deal=int(result.deal),
            price=result.price if result.deal else None,
            volume=result.volume if result.deal else None,
            sl=(echo.sl or None) if echo is not None else None,
            tp=(echo.tp or None) if echo is not None else None,
        )

    def _echo(self, command: Command, result: OrderSendResult, *, hedging: bool) -> TradePosition | None:
        """The position as re-read after the command, None when it is gone. Raises Failure."""
        self.reach()
        if command.kind is not CommandKind.OPEN:
            return self._held(command.position)
        if hedging:
            return self._held(result.order)
        return next((held for held in self._call(self._mt5.positions_get()) if held.symbol == command.symbol), None)


def _refused(code: Retcode) -> Outcome:
    """What the server would have said; nothing was sent."""
    return Outcome(OutcomeStatus.REJECTED, code, COMMENTS[code])
