"""What each trade of a run earned, with DTMS and without: pure reading of the two brokers' books."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dtms_service.broker.ledger import Deal
from dtms_service.broker.mt5_enums import DealEntry
from dtms_service.broker.paper import PaperBroker
from dtms_service.broker.recorded import RecordedDoor
from dtms_service.replay.driver import Trade


@dataclass(frozen=True, slots=True)
class LegResult:
    """A hedge or a re-add of a trade."""

    ticket: int
    side: str
    volume: float
    entry_price: float
    opened_ns: int
    profit: float
    open_at_end: bool


@dataclass(frozen=True, slots=True)
class TradeResult:
    """One trade. Money is account currency with commission and swap; R is multiples of ``risk_money``.

    ``profit`` is that of the position and of all of its legs. ``risk_money`` is the loss at the initial stop (or at
    the distance that the service took for R where there was none), without costs; where it is not known the two R are
    None. The unprotected figures are None where the shadow broker refused the trade. What was open at the end is
    valued at the last quote, closing commission included; the broker's books are not touched.
    """

    ticket: int
    symbol: str
    side: str
    entry_price: float
    initial_sl: float | None
    initial_tp: float | None
    volume: float
    opened_ns: int
    closed_ns: int
    risk_money: float | None
    profit: float
    r: float | None
    open_at_end: bool
    legs: tuple[LegResult, ...]
    unprotected_profit: float | None
    unprotected_r: float | None
    unprotected_closed_ns: int | None
    unprotected_open_at_end: bool | None


@dataclass(frozen=True, slots=True)
class _Position:
    """A position's whole life in the books."""

    opening: Deal
    profit_minor: int
    closed_ns: int
    is_open: bool


def trade_results(
    trades: Sequence[Trade],
    broker: PaperBroker,
    shadow: PaperBroker,
    door: RecordedDoor,
    risk_distances: Mapping[int, float],
) -> list[TradeResult]:
    """Results in order of opening. ``risk_distances`` has R as a price distance for trades without an initial stop."""
    own = {trade.registration.ticket for trade in trades}
    legs: dict[int, list[LegResult]] = {ticket: [] for ticket in own}
    for deal in broker.book.ledger.deals:
        # On a netting account a hedge or a re-add is a deal of the trade's own position, and counted with it.
        if deal.entry is DealEntry.IN and deal.position and deal.position not in own:
            of = door.trade_of(deal.position, deal.magic, deal.comment)
            if of in legs:
                legs[of].append(_leg(broker, deal))
    return [_result(trade, broker, shadow, tuple(legs[trade.registration.ticket]), risk_distances) for trade in trades]


def _result(
    trade: Trade,
    broker: PaperBroker,
    shadow: PaperBroker,
    legs: tuple[LegResult, ...],
    risk_distances: Mapping[int, float],
) -> TradeResult:
    opened, ledger = trade.registration, broker.book.ledger
    own = _position(broker, opened.ticket)
    twin = _position(shadow, trade.shadow_ticket) if trade.shadow_ticket is not None else None
    risk = _risk_money(trade, risk_distances.get(opened.ticket))
    profit = ledger.major(own.profit_minor + sum(ledger.minor(leg.profit) for leg in legs))
    unprotected = ledger.major(twin.profit_minor) if twin is not None else None
    return TradeResult(
        ticket=opened.ticket,
        symbol=opened.symbol,
        side=opened.side.name,
        entry_price=opened.entry_price,
        initial_sl=opened.sl,
        initial_tp=opened.tp,
        volume=opened.volume,
        opened_ns=opened.opened_ns,
        closed_ns=own.closed_ns,
        risk_money=risk,
        profit=profit,
        r=profit / risk if risk else None,
        open_at_end=own.is_open or any(leg.open_at_end for leg in legs),
        legs=legs,
        unprotected_profit=unprotected,
        unprotected_r=unprotected / risk if risk and unprotected is not None else None,
        unprotected_closed_ns=twin.closed_ns if twin is not None else None,
        unprotected_open_at_end=twin.is_open if twin is not None else None,
    )


def _leg(broker: PaperBroker, opening: Deal) -> LegResult:
    life = _position(broker, opening.position)
    return LegResult(
        ticket=opening.position,
        side=opening.type.name,
        volume=opening.volume,
        entry_price=opening.price,
        opened_ns=opening.time_msc * 1_000_000,
        profit=broker.book.ledger.major(life.profit_minor),
        open_at_end=life.is_open,
    )


def _position(broker: PaperBroker, ticket: int) -> _Position:
    book, config = broker.book, broker.config
    deals = book.ledger.of_position(ticket)
    money = sum(deal.total_minor for deal in deals)
    held = broker.find_position(ticket)
    if held is None:
        return _Position(deals[0], money, deals[-1].time_msc * 1_000_000, is_open=False)
    money += book.result_minor(held) - book.ledger.minor(config.commission_per_lot_side * held.volume)
    return _Position(deals[0], money, broker.now_msc * 1_000_000, is_open=True)


def _risk_money(trade: Trade, distance: float | None) -> float | None:
    opened = trade.registration
    if opened.sl is not None:
        distance = abs(opened.entry_price - opened.sl)
    return distance * trade.money_per_price if distance else None
