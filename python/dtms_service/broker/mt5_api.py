"""The paper broker behind the exact API of the MetaTrader5 package's C extension: 32 functions, its manners included.

``PaperMt5.exports()`` gives the functions by name, to be put into a module ``MetaTrader5._core`` so that the real
package's Python layer (constants, ``Close``, ``Buy``, ``Sell``) drives the broker. Functions marked positional refuse
keywords with TypeError; bad arguments and failures answer None (or False) and leave the cause in ``last_error()``.
Times are the server's wall clock; the broker inside keeps UTC.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from dtms_service.broker import mt5_views as views
from dtms_service.broker.door import Side
from dtms_service.broker.market import Market
from dtms_service.broker.paper import PaperBroker
from dtms_service.broker.rates import Rate, period_seconds, rates, rates_array, ticks_array
from dtms_service.broker.requests import InvalidArgument, parse_request, text_fits
from dtms_service.broker.retcodes import LastError
from dtms_service.broker.structs import (
    BookInfo,
    Mt5AccountInfo,
    OrderCheckResult,
    OrderSendResult,
    SymbolInfo,
    TerminalInfo,
    Tick,
    TradeDeal,
    TradeOrder,
    TradePosition,
)
from dtms_service.broker.terminal import Terminal
from dtms_service.broker.valuation import NoRate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BUILD = 6231
RELEASE_DATE = "22 Nov 2026"
FUNCTIONS = [
    "initialize",
    "shutdown",
    "login",
    "version",
    "last_error",
    "terminal_info",
    "account_info",
    "symbols_total",
    "symbols_get",
    "symbol_info",
    "symbol_info_tick",
    "symbol_select",
    "market_book_add",
    "market_book_get",
    "market_book_release",
    "copy_rates_from",
    "copy_rates_from_pos",
    "copy_rates_range",
    "copy_ticks_from",
    "copy_ticks_range",
    "positions_total",
    "positions_get",
    "orders_total",
    "orders_get",
    "history_orders_total",
    "history_orders_get",
    "history_deals_total",
    "history_deals_get",
    "order_check",
    "order_send",
    "order_calc_margin",
    "order_calc_profit",
]

_Row = TypeVar("_Row", TradePosition, TradeOrder, TradeDeal)


class PaperMt5:
    """One program's view of a paper broker. Nothing answers before :meth:`initialize`."""

    def __init__(self, broker: PaperBroker) -> None:
        self._broker = broker
        self._terminal = Terminal(broker)
        self._initialized = False

    def exports(self) -> dict[str, Callable[..., object]]:
        return {name: getattr(self, name) for name in FUNCTIONS}

    # --- connection ---

    def initialize(
        self,
        path: str | None = None,
        *,
        login: int | None = None,
        password: str | None = None,
        server: str | None = None,
        timeout: int | None = None,
        portable: bool = False,
    ) -> bool:
        """Open the pipe. There is one terminal whatever the path; a login of another account is refused."""
        del path, password, timeout, portable
        self._initialized = self._terminal.initialize() and self._authorized(login, server)
        return self._initialized

    def shutdown(self) -> None:
        self._initialized = False
        self._terminal.begin()

    def login(
        self, login: int, *, password: str | None = None, server: str | None = None, timeout: int | None = None
    ) -> bool:
        del password, timeout
        return self._reach() and self._authorized(login, server)

    def _authorized(self, login: int | None, server: str | None) -> bool:
        config = self._broker.config
        if login in (None, config.login) and server in (None, config.server):
            return True
        self._terminal.fail(LastError.AUTH_FAILED)
        return False

    def version(self) -> tuple[int, int, str] | None:
        return (500, BUILD, RELEASE_DATE) if self._reach() else None

    def last_error(self) -> tuple[int, str]:
        return self._terminal.last_error

    def terminal_info(self) -> TerminalInfo | None:
        return views.terminal_info(self._broker, BUILD) if self._reach() else None

    def account_info(self) -> Mt5AccountInfo | None:
        return views.account_info(self._broker, self._terminal.account()) if self._reach() else None

    # --- symbols ---

    def symbols_total(self) -> int | None:
        return len(self._broker.symbols) if self._reach() else None

    def symbols_get(self, group: str | None = None) -> tuple[SymbolInfo, ...] | None:
        if not self._reach():
            return None
        return tuple(self._symbol_info(name) for name in self._broker.symbols if _in_group(name, group))

    def symbol_info(self, symbol: str, /) -> SymbolInfo | None:
        return self._symbol_info(symbol) if self._market(symbol) is not None else None

    def symbol_info_tick(self, symbol: str, /) -> Tick | None:
        """None with RES_E_NOT_FOUND for an unknown symbol; zeros while the symbol has no quote."""
        if self._market(symbol) is None:
            return None
        return views.tick(self._terminal.quote(symbol), self._offset_s)

    def symbol_select(self, symbol: str, enable: bool = True, /) -> bool:
        """Every listed symbol is always selected; one in use cannot be hidden."""
        market = self._market(symbol)
        if market is None:
            return False
        if not enable:
            self._terminal.fail(LastError.FAIL)
        return bool(enable)

    def market_book_add(self, symbol: str, /) -> bool:
        """There is no depth of market (ticks_bookdepth is 0)."""
        if self._market(symbol) is not None:
            self._terminal.fail(LastError.UNSUPPORTED)
        return False

    def market_book_get(self, symbol: str, /) -> tuple[BookInfo, ...] | None:
        self.market_book_add(symbol)
        return None

    def market_book_release(self, symbol: str, /) -> bool:
        return self.market_book_add(symbol)

    # --- history of prices ---

    def copy_rates_from(
        self, symbol: str, timeframe: int, date_from: datetime | float, count: int, /
    ) -> NDArray[np.void] | None:
        """``count`` bars up to and with the one that holds ``date_from``."""
        bars = self._rates(symbol, timeframe)
        if bars is None:
            return None
        return rates_array([bar for bar in bars if bar.time <= _seconds(date_from)][-count:] if count > 0 else [])

    def copy_rates_from_pos(
        self, symbol: str, timeframe: int, start_pos: int, count: int, /
    ) -> NDArray[np.void] | None:
        """``count`` bars that end ``start_pos`` bars before the current one (0: the current bar)."""
        bars = self._rates(symbol, timeframe)
        if bars is None:
            return None
        end = max(0, len(bars) - start_pos)
        return rates_array(bars[max(0, end - count) : end])

    def copy_rates_range(
        self, symbol: str, timeframe: int, date_from: datetime | float, date_to: datetime | float, /
    ) -> NDArray[np.void] | None:
        bars = self._rates(symbol, timeframe)
        if bars is None:
            return None
        return rates_array(bar for bar in bars if _seconds(date_from) <= bar.time <= _seconds(date_to))

    def copy_ticks_from(
        self, symbol: str, date_from: datetime | float, count: int, flags: int, /
    ) -> NDArray[np.void] | None:
        """The first ``count`` ticks at or after ``date_from``. A quote symbol has no trade ticks."""
        rows = self._ticks(symbol, flags)
        return None if rows is None else ticks_array(islice((r for r in rows if r[0] >= _msc(date_from)), count))

    def copy_ticks_range(
        self, symbol: str, date_from: datetime | float, date_to: datetime | float, flags: int, /
    ) -> NDArray[np.void] | None:
        rows = self._ticks(symbol, flags)
        return None if rows is None else ticks_array(r for r in rows if _msc(date_from) <= r[0] <= _msc(date_to))

    # --- positions, orders, history ---

    def positions_total(self) -> int | None:
        return len(self._terminal.positions()) if self._reach() else None

    def positions_get(
        self, *, symbol: str | None = None, ticket: int | None = None, group: str | None = None
    ) -> tuple[TradePosition, ...] | None:
        if not self._reach():
            return None
        rows = (views.position(self._broker, p) for p in self._terminal.positions())
        return _select(rows, symbol=symbol, ticket=ticket, group=group)

    def orders_total(self) -> int | None:
        return len(self._broker.placed_orders()) if self._reach() else None

    def orders_get(
        self, *, symbol: str | None = None, ticket: int | None = None, group: str | None = None
    ) -> tuple[TradeOrder, ...] | None:
        """Accepted orders that are not executed yet."""
        if not self._reach():
            return None
        rows = (views.order(order, self._offset_s) for order in self._broker.placed_orders())
        return _select(rows, symbol=symbol, ticket=ticket, group=group)

    def history_orders_total(self, date_from: datetime | float, date_to: datetime | float, /) -> int | None:
        found = self.history_orders_get(date_from, date_to)
        return len(found) if found is not None else None

    def history_orders_get(
        self,
        date_from: datetime | float | None = None,
        date_to: datetime | float | None = None,
        *,
        group: str | None = None,
        ticket: int | None = None,
        position: int | None = None,
    ) -> tuple[TradeOrder, ...] | None:
        if not self._reach():
            return None
        done = (o for o in self._broker.book.ledger.orders.values() if o.time_done_msc)
        rows = (views.order(order, self._offset_s) for order in done)
        if ticket is not None or position is not None:
            return tuple(r for r in rows if ticket in (None, r.ticket) and position in (None, r.position_id))
        return self._dated(((r.time_done, r) for r in rows), date_from, date_to, group)

    def history_deals_total(self, date_from: datetime | float, date_to: datetime | float, /) -> int | None:
        found = self.history_deals_get(date_from, date_to)
        return len(found) if found is not None else None

    def history_deals_get(
        self,
        date_from: datetime | float | None = None,
        date_to: datetime | float | None = None,
        *,
        group: str | None = None,
        ticket: int | None = None,
        position: int | None = None,
    ) -> tuple[TradeDeal, ...] | None:
        """Deals of the period, or of an order (``ticket``), or of a position."""
        if not self._reach():
            return None
        ledger = self._broker.book.ledger
        rows = (views.deal(ledger, deal, self._offset_s) for deal in ledger.deals)
        if ticket is not None or position is not None:
            return tuple(r for r in rows if ticket in (None, r.order) and position in (None, r.position_id))
        return self._dated(((r.time, r) for r in rows), date_from, date_to, group)

    # --- trading ---

    def order_send(self, *args: object, **fields: object) -> OrderSendResult | None:
        request = self._request(args, fields)
        if request is None:
            return None
        if not self._initialized:
            self._explain_offline(request)
            return None
        return self._terminal.order_send(request)

    def order_check(self, *args: object, **fields: object) -> OrderCheckResult | None:
        request = self._request(args, fields)
        if request is None:
            return None
        if not self._initialized:
            self._explain_offline(request)
            return None
        try:
            return self._broker.order_check(request) if self._reach() else None
        except InvalidArgument as error:
            self._terminal.fail(LastError.INVALID_PARAMS, str(error))
            return None

    def order_calc_margin(self, action: int, symbol: str, volume: float, price: float, /) -> float | None:
        """Margin of a market order on its own, account currency."""
        market, side = self._market(symbol), _side(action)
        if market is None or side is None or not (volume > 0 and price > 0):
            self._explain_invalid(market)
            return None
        try:
            return self._broker.calc_margin(market, side, volume, price)
        except NoRate:
            self._terminal.fail(LastError.NOT_FOUND)
            return None

    def order_calc_profit(
        self, action: int, symbol: str, volume: float, price_open: float, price_close: float, /
    ) -> float | None:
        market, side = self._market(symbol), _side(action)
        if market is None or side is None or not (volume > 0 and price_open > 0 and price_close > 0):
            self._explain_invalid(market)
            return None
        try:
            return self._broker.calc_profit(market, side, volume, price_open, price_close)
        except NoRate:
            self._terminal.fail(LastError.NOT_FOUND)
            return None

    # --- inside ---

    @property
    def _offset_s(self) -> int:
        return self._broker.config.server_utc_offset_s

    def _reach(self) -> bool:
        if not self._initialized:
            self._terminal.fail(LastError.INTERNAL_FAIL_CONNECT)
            return False
        return self._terminal.reach()

    def _request(self, args: tuple[object, ...], fields: dict[str, object]) -> Mapping[str, object] | None:
        self._terminal.begin()
        if not args:
            return fields
        if len(args) == 1 and isinstance(args[0], dict) and not fields:
            return args[0]
        self._terminal.fail(
            LastError.INVALID_PARAMS, "Invalid arguments" if len(args) == 1 else "Unnamed arguments not allowed"
        )
        return None

    def _explain_offline(self, request: Mapping[str, object]) -> None:
        """The layer checks types before it looks at the pipe."""
        try:
            parse_request(request)
        except InvalidArgument as error:
            self._terminal.fail(LastError.INVALID_PARAMS, str(error))
        else:
            self._terminal.fail(LastError.INTERNAL_FAIL_CONNECT)

    def _explain_invalid(self, market: Market | None) -> None:
        """Bad numbers; a bad symbol has left its cause already."""
        if market is not None:
            self._terminal.fail(LastError.INVALID_PARAMS)

    def _market(self, symbol: object) -> Market | None:
        """The symbol, or None with the cause in last_error."""
        if not isinstance(symbol, str) or not text_fits(symbol):
            self._terminal.fail(LastError.INVALID_PARAMS, "Invalid 1st unnamed argument")
            return None
        if not self._reach():
            return None
        market = self._broker.find_market(symbol)
        if market is None:
            self._terminal.fail(LastError.NOT_FOUND)
        return market

    def _symbol_info(self, name: str) -> SymbolInfo:
        return views.symbol_info(self._broker, self._broker.market(name), self._terminal.quote(name))

    def _rates(self, symbol: str, timeframe: int) -> list[Rate] | None:
        market, period_s = self._market(symbol), period_seconds(timeframe)
        if market is None:
            return None
        if period_s is None:
            self._terminal.fail(LastError.INVALID_PARAMS)
            return None
        return list(rates(market, period_s, self._offset_s))

    def _ticks(self, symbol: str, flags: int) -> list[tuple[int, float, float, int]] | None:
        market = self._market(symbol)
        if market is None:
            return None
        shift = self._offset_s * 1000
        return [(t + shift, bid, ask, volume) for t, bid, ask, volume in market.ticks] if flags != 2 else []

    def _dated(
        self,
        rows: Iterable[tuple[int, _Row]],
        date_from: datetime | float | None,
        date_to: datetime | float | None,
        group: str | None,
    ) -> tuple[_Row, ...] | None:
        if date_from is None or date_to is None:
            self._terminal.fail(LastError.INVALID_PARAMS, "Invalid number of arguments")
            return None
        first, last = _seconds(date_from), _seconds(date_to)
        return tuple(row for time, row in rows if first <= time <= last and _in_group(row.symbol, group))


def _select(rows: Iterable[_Row], *, symbol: str | None, ticket: int | None, group: str | None) -> tuple[_Row, ...]:
    """Ticket wins over symbol, symbol over group."""
    if ticket is not None:
        return tuple(row for row in rows if row.ticket == ticket)
    if symbol is not None:
        return tuple(row for row in rows if row.symbol == symbol)
    return tuple(row for row in rows if _in_group(row.symbol, group))


def _in_group(name: str, group: str | None) -> bool:
    """Comma-separated masks with ``*``; the last one that matches decides, ``!`` excludes."""
    if group is None:
        return True
    included = False
    for mask in group.split(","):
        wanted = mask.strip()
        if fnmatch.fnmatchcase(name, wanted.removeprefix("!")):
            included = not wanted.startswith("!")
    return included


def _side(action: int) -> Side | None:
    return {0: Side.BUY, 1: Side.SELL}.get(action)


def _seconds(date: datetime | float) -> float:
    return date.timestamp() if isinstance(date, datetime) else float(date)


def _msc(date: datetime | float) -> float:
    return _seconds(date) * 1000
