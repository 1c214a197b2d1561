"""What managers look at: a trade, and a quote of its symbol."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final, Self, TypeAlias

from dtms.v1.market_data_service_pb2 import Quote
from dtms.v1.ownership_pb2 import Rank
from dtms.v1.trade_pb2 import (
    SIDE_BUY,
    STATE_PHASE_PENDING,
    TRADE_STATE_HEALTHY,
    TRADE_STATE_HEDGED,
    TRADE_STATE_RECOVERING,
    TRADE_STATE_WARNING_L1,
    TRADE_STATE_WARNING_L2,
    ManagerRecord,
    Trade,
    TradeState,
)
from dtms_client.managing.points import SNAP

DEFENSIVE: Final = frozenset({TRADE_STATE_WARNING_L2, TRADE_STATE_HEDGED})
OPEN_TO_OTHERS: Final = frozenset({TRADE_STATE_HEALTHY, TRADE_STATE_WARNING_L1, TRADE_STATE_RECOVERING})

Instrument: TypeAlias = tuple[str, str]
"""(account_id, symbol)"""
Key: TypeAlias = tuple[str, int]
"""(account_id, ticket)"""


@dataclass(frozen=True, slots=True)
class TradeView:
    """What the rules look at in a trade. Prices as the broker has them, volume in lots, risk as a price distance."""

    account_id: str
    ticket: int
    symbol: str
    sign: int
    """+1 for a BUY, -1 for a SELL."""
    entry: float
    initial_volume: float
    """At registration."""
    volume: float
    stop: float | None
    stop_rank: Rank.ValueType
    """Of the manager that set the stop; unspecified where none did."""
    target: float | None
    risk: float | None
    risk_budget_r: float
    """How many R the trade may lose in all."""
    state: TradeState.ValueType
    pending: bool
    """Actions of DTMS itself are not settled yet."""
    quarantined: bool
    breakeven_triggered: bool
    managed_by: str
    owner_rank: Rank.ValueType
    owner_epoch: int
    strategy_type: str
    opened_ns: int
    """At the broker; 0 where whoever registered it did not say."""
    registered_ns: int
    partial_taken: bool
    """By this manager."""
    part_off_outside: bool
    """A part is gone that nobody has taken through DTMS: closed by hand, or while DTMS was away."""
    last_change_ns: int
    """Of this manager, confirmed; 0 for none."""
    memo: str = field(compare=False)
    """What this manager has left at DTMS; no fact of the trade."""

    @classmethod
    def of(cls, trade: Trade, *, manager: str) -> Self:
        """The view of `manager` on a trade."""
        # Until the broker has echoed levels, those of the registration stand.
        if trade.HasField("confirmed"):
            stop = trade.confirmed.sl if trade.confirmed.HasField("sl") else None
            target = trade.confirmed.tp if trade.confirmed.HasField("tp") else None
        else:
            stop = trade.initial_sl if trade.HasField("initial_sl") else None
            target = trade.initial_tp if trade.HasField("initial_tp") else None
        own = next((record for record in trade.managers if record.manager == manager), ManagerRecord())
        return cls(
            account_id=trade.account_id,
            ticket=trade.ticket,
            symbol=trade.symbol,
            sign=1 if trade.side == SIDE_BUY else -1,
            entry=trade.entry_price,
            initial_volume=trade.initial_volume,
            volume=trade.volume,
            stop=stop,
            stop_rank=trade.confirmed.set_by_rank,
            target=target,
            risk=trade.risk_distance if trade.HasField("risk_distance") else None,
            risk_budget_r=trade.risk_budget_r,
            state=trade.state,
            pending=trade.phase == STATE_PHASE_PENDING or bool(trade.pending_actions),
            quarantined=trade.quarantined,
            breakeven_triggered=trade.breakeven_triggered,
            managed_by=trade.managed_by,
            owner_rank=trade.owner_rank,
            owner_epoch=trade.owner_epoch,
            strategy_type=trade.strategy_type,
            opened_ns=trade.opened_ns,
            registered_ns=trade.registered_ns,
            partial_taken=own.partial_taken,
            part_off_outside=_part_off_outside(trade),
            last_change_ns=own.last_change_ns,
            memo=own.memo,
        )

    @property
    def key(self) -> Key:
        """Which trade it is."""
        return (self.account_id, self.ticket)

    @property
    def instrument(self) -> Instrument:
        """Whose quotes it follows."""
        return (self.account_id, self.symbol)

    @property
    def reserved(self) -> str | None:
        """Why nobody but DTMS may act on it now; None where others may, as far as its owner lets them."""
        if self.quarantined:
            return "quarantined"
        if self.state in DEFENSIVE:
            return "defensive"
        if self.state not in OPEN_TO_OTHERS:
            return "closed or unknown state"
        return "DTMS has actions under way" if self.pending else None


def _part_off_outside(trade: Trade) -> bool:
    taken_inside = (
        trade.partial_taken or trade.closed_volume > 0 or any(record.partial_taken for record in trade.managers)
    )
    return not taken_inside and 0 < trade.volume < trade.initial_volume * (1 - SNAP)


@dataclass(frozen=True, slots=True)
class QuoteView:
    """What the rules look at in a quote. Prices as the broker has them, ATR as price distances, volumes in lots,
    levels in points."""

    bid: float
    ask: float
    atr: float | None
    """ATR(14) of the slow timeframe; None until warm."""
    atr_fast: float | None
    swing_high: float | None
    """Last confirmed one of the slow timeframe."""
    swing_low: float | None
    point: float
    tick_size: float
    """Prices of orders are multiples of it."""
    volume_min: float
    volume_step: float
    stops_level: int
    freeze_level: int

    @classmethod
    def of(cls, quote: Quote) -> Self:
        """The view on a quote."""
        return cls(
            bid=quote.bid,
            ask=quote.ask,
            atr=quote.atr_slow if quote.HasField("atr_slow") else None,
            atr_fast=quote.atr_fast if quote.HasField("atr_fast") else None,
            swing_high=quote.swing_high if quote.HasField("swing_high") else None,
            swing_low=quote.swing_low if quote.HasField("swing_low") else None,
            point=quote.point,
            tick_size=quote.tick_size,
            volume_min=quote.volume_min,
            volume_step=quote.volume_step,
            stops_level=quote.stops_level,
            freeze_level=quote.freeze_level,
        )

    @property
    def usable(self) -> bool:
        """A price that can be traded at, with the rules of its symbol."""
        return 0 < self.bid <= self.ask < math.inf and self.point > 0 and self.volume_step > 0
