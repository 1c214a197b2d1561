"""The trade server's checks, in order: the first that refuses a request names its retcode (mt5.md section 4).

Each check is a function of (account, inquiry) that answers a retcode or None; the tuples at the end are the order.
Facts without documentation are marked [inf], as in mt5.md: they stand here and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from dtms_service.broker.door import Side
from dtms_service.broker.market import Market, PaperPosition
from dtms_service.broker.mt5_enums import Action, Execution, Filling, FillingFlag, OrderFlag, OrderTime, TradeMode
from dtms_service.broker.paper_config import PaperConfig
from dtms_service.broker.retcodes import Retcode
from dtms_service.broker.structs import TradeRequest
from dtms_service.broker.valuation import DAY_MS, day_of_week, server_day

LEAST_STOP_DISTANCE = 1  # points; with stops_level 0 a stop at the price itself is still on the wrong side [inf]

_SIDES = {0: Side.BUY, 1: Side.SELL}
_REQUEST_FILLS = {Filling.FOK: FillingFlag.FOK, Filling.IOC: FillingFlag.IOC}
_PRICED = frozenset({Execution.REQUEST, Execution.INSTANT})


class Operation(Enum):
    MODIFY = 1
    CLOSE = 2
    OPEN = 3
    CLOSE_BY = 4


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A request with what it speaks of. ``side`` is the order's side; ``steps`` is None when the volume is off step."""

    request: TradeRequest
    operation: Operation | None
    market: Market | None
    position: PaperPosition | None
    counter: PaperPosition | None
    side: Side | None
    steps: int | None


class AccountView(Protocol):
    """What the checks may ask of the account."""

    @property
    def config(self) -> PaperConfig: ...
    @property
    def now_msc(self) -> int: ...
    @property
    def position_count(self) -> int: ...
    def find_position(self, ticket: int) -> PaperPosition | None: ...
    def find_market(self, symbol: str) -> Market | None: ...
    def netted_with(self, market: Market, side: Side) -> PaperPosition | None:
        """The position that an order of this side reduces instead of opening one (netting accounts)."""

    def can_value(self, market: Market) -> bool: ...
    def over_rate(self) -> bool: ...
    def lacks_margin(self, market: Market, side: Side, steps: int) -> bool: ...


Check = Callable[[AccountView, Inquiry], Retcode | None]


def inquire(account: AccountView, request: TradeRequest) -> Inquiry:
    """Resolve symbol and positions and say what the request asks for (operation None: nothing this broker knows)."""
    position = account.find_position(request.position) if request.position else None
    market = account.find_market(request.symbol)
    if market is None and not request.symbol and position is not None and request.action != Action.DEAL:
        market = position.market
    if position is None and not request.position and market is not None and not account.config.hedging:
        held = next(iter(market.positions.values()), None)
        position = held if request.action == Action.SLTP else None
    operation: Operation | None = None
    if request.action == Action.SLTP:
        operation = Operation.MODIFY
    elif request.action == Action.DEAL:
        operation = Operation.CLOSE if request.position else Operation.OPEN
    elif request.action == Action.CLOSE_BY:
        operation = Operation.CLOSE_BY
    return Inquiry(
        request=request,
        operation=operation,
        market=market,
        position=position,
        counter=account.find_position(request.position_by) if request.position_by else None,
        side=_SIDES.get(request.type),
        steps=market.steps(request.volume) if market is not None else None,
    )


def refusal(account: AccountView, inquiry: Inquiry) -> Retcode | None:
    """The retcode of the first check that refuses, or None."""
    for check in ADMISSION:
        if (code := check(account, inquiry)) is not None:
            return code
    assert inquiry.operation is not None
    for check in CHECKS[inquiry.operation]:
        if (code := check(account, inquiry)) is not None:
            return code
    return None


def _market(inquiry: Inquiry) -> Market:
    assert inquiry.market is not None, "the symbol is checked first"
    return inquiry.market


def _position(inquiry: Inquiry) -> PaperPosition:
    assert inquiry.position is not None, "the position is checked first"
    return inquiry.position


# --- admission -------------------------------------------------------------------------------------------------------


def known_request(_: AccountView, inquiry: Inquiry) -> Retcode | None:
    request = inquiry.request
    if request.action in (Action.PENDING, Action.MODIFY, Action.REMOVE):
        return Retcode.INVALID_ORDER  # order_mode offers market orders only
    if inquiry.operation is None:
        return Retcode.INVALID
    if not all(math.isfinite(v) for v in (request.volume, request.price, request.stoplimit, request.sl, request.tp)):
        return Retcode.INVALID
    if request.type_time not in set(OrderTime):
        return Retcode.INVALID_EXPIRATION
    gone = inquiry.market is None and not request.symbol and request.position and inquiry.position is None
    if gone and inquiry.operation in (Operation.MODIFY, Operation.CLOSE_BY):
        return Retcode.POSITION_CLOSED
    if inquiry.market is None:
        return Retcode.INVALID
    return Retcode.INVALID if inquiry.operation is Operation.OPEN and inquiry.side is None else None


def trade_mode(account: AccountView, inquiry: Inquiry) -> Retcode | None:
    market = _market(inquiry)
    if market.trading.trade_mode is TradeMode.DISABLED:
        return Retcode.TRADE_DISABLED
    if inquiry.operation is not Operation.OPEN or inquiry.side is None:
        return None
    reduced = account.netted_with(market, inquiry.side)
    if reduced is not None and inquiry.steps is not None and inquiry.steps <= reduced.steps:
        return None
    match market.trading.trade_mode:
        case TradeMode.CLOSEONLY:
            return Retcode.CLOSE_ONLY
        case TradeMode.LONGONLY:
            return Retcode.LONG_ONLY if inquiry.side is Side.SELL else None
        case TradeMode.SHORTONLY:
            return Retcode.SHORT_ONLY if inquiry.side is Side.BUY else None
        case TradeMode.FULL:
            return None


def in_session(account: AccountView, inquiry: Inquiry) -> Retcode | None:
    sessions = _market(inquiry).trading.sessions
    if not sessions:
        return None
    offset_s = account.config.server_utc_offset_s
    weekday = day_of_week(server_day(account.now_msc, offset_s))
    second = (account.now_msc + offset_s * 1000) % DAY_MS // 1000
    is_open = any(s.day == weekday and s.open_s <= second < s.close_s for s in sessions)
    return None if is_open else Retcode.MARKET_CLOSED


def has_price(account: AccountView, inquiry: Inquiry) -> Retcode | None:
    """A quote, and the rates without which a deal could not be booked."""
    return None if account.can_value(_market(inquiry)) else Retcode.PRICE_OFF


def within_rate(account: AccountView, _: Inquiry) -> Retcode | None:
    return Retcode.TOO_MANY_REQUESTS if account.over_rate() else None


# --- positions -------------------------------------------------------------------------------------------------------


def position_named(account: AccountView, inquiry: Inquiry) -> Retcode | None:
    """On hedging accounts a level change must name its position [inf: 10013 for position 0]."""
    return Retcode.INVALID if account.config.hedging and not inquiry.request.position else None


def position_open(_: AccountView, inquiry: Inquiry) -> Retcode | None:
    return Retcode.POSITION_CLOSED if inquiry.position is None else None


def symbol_matches(_: AccountView, inquiry: Inquiry) -> Retcode | None:
    return Retcode.INVALID if _position(inquiry).market is not inquiry.market else None


def not_closing(_: AccountView, inquiry: Inquiry) -> Retcode | None:
    return Retcode.CLOSE_ORDER_EXIST if _position(inquiry).busy else None


def not_frozen(_: AccountView, inquiry: Inquiry) -> Retcode | None:
    position = _position(inquiry)
    market, freeze = position.market, position.market.spec.freeze_level
    if not freeze:
        return None
    price = market.close_points(position.side)
    near_sl = position.sl_points and (price - position.sl_points) * position.sign <= freeze
    near_tp = position.tp_points and (position.tp_points - price) * position.sign <= freeze
    return Retcode.FROZEN if near_sl or near_tp else None


def changes_a_level(_: AccountView, inquiry: Inquiry) -> Retcode | None:
    position, market = _position(inquiry), _market(inquiry)
    wanted = market.points(inquiry.request.sl), market.points(inquiry.request.tp)
    return Retcode.NO_CHANGES if wanted == (position.sl_points, position.tp_points) else None


def changed_levels_legal(_: AccountView, inquiry: Inquiry) -> Retcode | None:
    """Only a changed level is judged: an unchanged one stays legal though the price came near [inf]."""
    position, market = _position(inquiry), _market(inquiry)
    sl, tp = market.points(inquiry.request.sl), market.points(inquiry.request.tp)
    return _levels(
        market,
        position.side,
        sl if sl != position.sl_points else 0,
        tp if tp != position.tp_points else 0,
    )


def levels_legal(account: AccountView, inquiry: Inquiry) -> Retcode | None:
    market = _market(inquiry)
    assert inquiry.side is not None, "the order type is checked first"
    reduced = account.netted_with(market, inquiry.side)
    if reduced is not None and inquiry.steps is not None and inquiry.steps <= reduced.steps:
        return None  # a reduction leaves the position's levels and ignores the order's
    return _levels(market, inquiry.side, market.points(inquiry.request.sl), market.points(inquiry.request.tp))


def _levels(market: Market, side: Side, sl: int, tp: int) -> Retcode | None:
    """Distances from the price that would close the position; 0 means no level and is always legal."""
    sign = 1 if side is Side.BUY else -1
    price = market.close_points(side)
    least = max(market.spec.stops_level, LEAST_STOP_DISTANCE)
    tick_points = round(market.spec.tick_size / market.spec.point)
    for level, distance in ((sl, (price - sl) * sign), (tp, (tp - price) * sign)):
        if level and (level < 0 or level % tick_points or distance < least):
            return Retcode.INVALID_STOPS
    return None


# --- deals -----------------------------------------------------------------------------------------------------------


def closes_its_side(_: AccountView, inquiry: Inquiry) -> Retcode | None:
    return None if inquiry.side is _position(inquiry).side.opposite else Retcode.INVALID


def volume_legal(_: AccountView, inquiry: Inquiry) -> Retcode | None:
    spec = _market(inquiry).spec
    least, most = round(spec.volume_min / spec.volume_step), round(spec.volume_max / spec.volume_step)
    return None if inquiry.steps is not None and least <= inquiry.steps <= most else Retcode.INVALID_VOLUME


def volume_held(_: AccountView, inquiry: Inquiry) -> Retcode | None:
    """Not more than the position has, and no remainder below the least volume [inf: 10014 for the remainder]."""
    position, steps = _position(inquiry), inquiry.steps
    assert steps is not None, "the volume is checked first"
    if steps > position.steps:
        return Retcode.INVALID_CLOSE_VOLUME
    spec = position.market.spec
    remainder = position.steps - steps
    return Retcode.INVALID_VOLUME if 0 < remainder < round(spec.volume_min / spec.volume_step) else None


def filling_allowed(_: AccountView, inquiry: Inquiry) -> Retcode | None:
    return None if inquiry.request.type_filling in fillings(_market(inquiry)) else Retcode.INVALID_FILL


def fillings(market: Market) -> frozenset[Filling]:
    """Filling modes a market order may carry: FOK on Request/Instant, the mask's on Market, also RETURN on Exchange."""
    trading = market.trading
    if trading.execution in _PRICED:
        return frozenset({Filling.FOK})
    masked = frozenset(filling for filling, flag in _REQUEST_FILLS.items() if trading.filling & flag)
    return masked | {Filling.RETURN} if trading.execution is Execution.EXCHANGE else masked


def default_filling(market: Market) -> Filling:
    """The mode to ask for on this symbol, by its execution and mask; read anew for every order (mt5.md 2.2)."""
    trading = market.trading
    if trading.execution is Execution.EXCHANGE:
        return Filling.RETURN
    if trading.execution is Execution.MARKET and trading.filling & FillingFlag.IOC:
        return Filling.IOC
    return Filling.FOK


def price_current(_: AccountView, inquiry: Inquiry) -> Retcode | None:
    """Price and deviation bind on Request and Instant execution only."""
    market, request = _market(inquiry), inquiry.request
    if market.trading.execution not in _PRICED:
        return None
    if request.price <= 0:
        return Retcode.INVALID_PRICE
    assert inquiry.side is not None, "the order type is checked first"
    current = market.ask_points if inquiry.side is Side.BUY else market.bid_points
    return Retcode.REQUOTE if abs(market.points(request.price) - current) > request.deviation else None


def first_in_line(account: AccountView, inquiry: Inquiry) -> Retcode | None:
    position = _position(inquiry)
    oldest = min(p.ticket for p in position.market.positions.values() if p.side is position.side)
    return Retcode.FIFO_CLOSE if account.config.fifo_close and position.ticket != oldest else None


def below_position_limit(account: AccountView, inquiry: Inquiry) -> Retcode | None:
    limit = account.config.limit_positions
    adds = account.config.hedging or not _market(inquiry).positions
    return Retcode.LIMIT_POSITIONS if adds and limit and account.position_count >= limit else None


def below_volume_limit(_: AccountView, inquiry: Inquiry) -> Retcode | None:
    market = _market(inquiry)
    if not market.trading.volume_limit:
        return None
    held = sum(p.steps for p in market.positions.values() if p.side is inquiry.side)
    assert inquiry.steps is not None, "the volume is checked first"
    allowed = market.trading.volume_limit / market.spec.volume_step
    return Retcode.LIMIT_VOLUME if held + inquiry.steps > allowed + 1e-7 else None


def hedge_allowed(account: AccountView, inquiry: Inquiry) -> Retcode | None:
    opposite = any(p.side is not inquiry.side for p in _market(inquiry).positions.values())
    forbidden = account.config.hedging and account.config.hedge_prohibited
    return Retcode.HEDGE_PROHIBITED if forbidden and opposite else None


def margin_suffices(account: AccountView, inquiry: Inquiry) -> Retcode | None:
    assert inquiry.side is not None, "the order type is checked first"
    assert inquiry.steps is not None, "the volume is checked first"
    short = account.lacks_margin(_market(inquiry), inquiry.side, inquiry.steps)
    return Retcode.NO_MONEY if short else None


def not_closing_netted(account: AccountView, inquiry: Inquiry) -> Retcode | None:
    assert inquiry.side is not None, "the order type is checked first"
    reduced = account.netted_with(_market(inquiry), inquiry.side)
    return Retcode.CLOSE_ORDER_EXIST if reduced is not None and reduced.busy else None


def counter_matches(account: AccountView, inquiry: Inquiry) -> Retcode | None:
    """CLOSE_BY: two opposite positions of one symbol, on a hedging account that offers it."""
    position, counter = _position(inquiry), inquiry.counter
    if not account.config.hedging or not position.market.trading.order_mode & OrderFlag.CLOSE_BY:
        return Retcode.INVALID_ORDER
    if counter is None:
        return Retcode.POSITION_CLOSED
    if counter.market is not position.market or counter.side is position.side:
        return Retcode.INVALID
    return Retcode.CLOSE_ORDER_EXIST if counter.busy else None


ADMISSION: tuple[Check, ...] = (known_request, trade_mode, in_session, has_price, within_rate)

CHECKS: dict[Operation, tuple[Check, ...]] = {
    Operation.MODIFY: (
        position_named,
        position_open,
        symbol_matches,
        not_closing,
        not_frozen,
        changes_a_level,
        changed_levels_legal,
    ),
    Operation.CLOSE: (
        position_open,
        not_closing,
        symbol_matches,
        closes_its_side,
        volume_legal,
        volume_held,
        filling_allowed,
        not_frozen,
        first_in_line,
        price_current,
    ),
    Operation.OPEN: (
        volume_legal,
        filling_allowed,
        price_current,
        not_closing_netted,
        levels_legal,
        below_position_limit,
        below_volume_limit,
        hedge_allowed,
        margin_suffices,
    ),
    Operation.CLOSE_BY: (position_open, symbol_matches, not_closing, not_frozen, counter_matches),
}
