"""What the exit manager wants of a trade: breakeven, partial, trailing. Pure; no clock, no I/O.

All sums are done in points and seen from the trade: for a SELL every price changes its sign, so that "higher" always
means "better for the trade" and both sides share one rule. Rounding down is then rounding away from the price.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Final, Self, TypeAlias

from dtms.v1.action_pb2 import (
    ACTION_KIND_PARTIAL_CLOSE,
    ACTION_KIND_STOP,
    PURPOSE_BREAKEVEN,
    PURPOSE_PARTIAL,
    PURPOSE_TRAIL,
    Action,
    Purpose,
)
from dtms.v1.market_data_service_pb2 import Quote
from dtms.v1.ownership_pb2 import RANK_STRATEGY, Rank
from dtms.v1.trade_pb2 import (
    SIDE_BUY,
    STATE_PHASE_PENDING,
    TRADE_STATE_HEALTHY,
    TRADE_STATE_HEDGED,
    TRADE_STATE_RECOVERING,
    TRADE_STATE_WARNING_L1,
    TRADE_STATE_WARNING_L2,
    Trade,
    TradeState,
)

# Prices and volumes come as doubles: whatever is nearer than this to a whole point or step is meant to be one.
SNAP: Final = 1e-6

DEFENSIVE: Final = frozenset({TRADE_STATE_WARNING_L2, TRADE_STATE_HEDGED})
OPEN_TO_OTHERS: Final = frozenset({TRADE_STATE_HEALTHY, TRADE_STATE_WARNING_L1, TRADE_STATE_RECOVERING})


@dataclass(frozen=True, slots=True)
class ExitRules:
    """Numbers of the rules; the defaults are the documented ones. Raises ValueError for one that makes no sense."""

    breakeven_at_r: float = 0.2
    """Breakeven once the trade is ahead by so many R."""
    breakeven_extra: float = 0.0001
    """What breakeven adds to entry and spread, as a share of the entry price."""
    partial_at: float = 0.5
    """Partial once so much of the way to the target is done."""
    partial_fraction: float = 0.5
    """Share of the volume that the partial closes."""
    trail_atr: float = 1.5
    """After breakeven the stop follows the price at so many ATR(14) of the slow timeframe."""
    trail_step_r: float = 0.05
    """The stop follows in steps of at least so many R."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{each.name}: {value!r} is not a number")
        for name in ("breakeven_at_r", "trail_atr"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: must be above 0")
        for name in ("breakeven_extra", "trail_step_r"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: must not be below 0")
        for name in ("partial_at", "partial_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}: must be between 0 and 1")


@dataclass(frozen=True, slots=True)
class TradeView:
    """What the rules look at in a trade. Prices as the broker has them, volume in lots, risk as a price distance."""

    account_id: str
    ticket: int
    symbol: str
    sign: int
    """+1 for a BUY, -1 for a SELL."""
    entry: float
    volume: float
    stop: float | None
    target: float | None
    risk: float | None
    state: TradeState.ValueType
    pending: bool
    """Actions of DTMS itself are not settled yet."""
    quarantined: bool
    breakeven_triggered: bool
    owner_rank: Rank.ValueType
    owner_epoch: int
    partial_taken: bool
    """By this manager."""

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
        return cls(
            account_id=trade.account_id,
            ticket=trade.ticket,
            symbol=trade.symbol,
            sign=1 if trade.side == SIDE_BUY else -1,
            entry=trade.entry_price,
            volume=trade.volume,
            stop=stop,
            target=target,
            risk=trade.risk_distance if trade.HasField("risk_distance") else None,
            state=trade.state,
            pending=trade.phase == STATE_PHASE_PENDING or bool(trade.pending_actions),
            quarantined=trade.quarantined,
            breakeven_triggered=trade.breakeven_triggered,
            owner_rank=trade.owner_rank,
            owner_epoch=trade.owner_epoch,
            partial_taken=any(record.partial_taken for record in trade.managers if record.manager == manager),
        )


@dataclass(frozen=True, slots=True)
class QuoteView:
    """What the rules look at in a quote. Prices and ATR as price distances, volumes in lots, levels in points."""

    bid: float
    ask: float
    atr: float | None
    point: float
    volume_min: float
    volume_step: float
    stops_level: int

    @classmethod
    def of(cls, quote: Quote) -> Self:
        """The view on a quote."""
        return cls(
            bid=quote.bid,
            ask=quote.ask,
            atr=quote.atr_slow if quote.HasField("atr_slow") else None,
            point=quote.point,
            volume_min=quote.volume_min,
            volume_step=quote.volume_step,
            stops_level=quote.stops_level,
        )

    @property
    def usable(self) -> bool:
        """A price that can be traded at, with the rules of its symbol."""
        return 0 < self.bid <= self.ask < math.inf and self.point > 0 and self.volume_step > 0


@dataclass(frozen=True, slots=True)
class MoveStop:
    """Stop to a price."""

    purpose: Purpose.ValueType
    stop: float

    def action(self) -> Action:
        """As the wire wants it."""
        return Action(kind=ACTION_KIND_STOP, purpose=self.purpose, stop=self.stop)


@dataclass(frozen=True, slots=True)
class TakePartial:
    """Close a part, in lots."""

    volume: float

    @property
    def purpose(self) -> Purpose.ValueType:
        """Always the same."""
        return PURPOSE_PARTIAL

    def action(self) -> Action:
        """As the wire wants it."""
        return Action(kind=ACTION_KIND_PARTIAL_CLOSE, purpose=PURPOSE_PARTIAL, volume=self.volume)


Wish: TypeAlias = MoveStop | TakePartial


def deferral(trade: TradeView) -> str | None:
    """Why the exit manager keeps its hands off the trade; None when it may act."""
    if trade.quarantined:
        return "quarantined"
    if trade.state in DEFENSIVE:
        return "defensive"
    if trade.state not in OPEN_TO_OTHERS:
        return "closed or unknown state"
    if trade.pending:
        return "DTMS has actions under way"
    if trade.owner_rank == RANK_STRATEGY and trade.breakeven_triggered:
        return "the strategy's owner takes over after breakeven"
    return None


def decide(trade: TradeView, quote: QuoteView, rules: ExitRules) -> list[Wish]:
    """What to ask for now, the most urgent first; empty when all is as it should be."""
    if not quote.usable or deferral(trade) is not None:
        return []
    seen = _Seen(trade, quote)
    stop = _breakeven(seen, rules) if not seen.protected(rules) else _trail(seen, rules)
    part = _partial(trade, quote, seen, rules)
    return [wish for wish in (stop, part) if wish is not None]


class _Seen:
    """The market in points from the side of the trade."""

    __slots__ = (
        "_breakeven_triggered",
        "_point",
        "_sign",
        "atr",
        "entry",
        "exit",
        "legal",
        "risk",
        "spread",
        "stop",
        "target",
    )

    def __init__(self, trade: TradeView, quote: QuoteView) -> None:
        self._sign = trade.sign
        self._point = point = quote.point
        self._breakeven_triggered = trade.breakeven_triggered
        bid, ask = _points(quote.bid, point), _points(quote.ask, point)
        self.spread = ask - bid
        self.exit = bid if trade.sign > 0 else -ask
        self.entry = trade.sign * _points(trade.entry, point)
        self.stop = None if trade.stop is None else trade.sign * _points(trade.stop, point)
        self.target = None if trade.target is None else trade.sign * _points(trade.target, point)
        self.risk = None if trade.risk is None else _points(trade.risk, point)
        self.atr = None if quote.atr is None else quote.atr / point
        # The best stop that the broker takes; a stop at the price itself is none.
        self.legal = self.exit - max(quote.stops_level, 1)

    @property
    def gain(self) -> float:
        """Points ahead."""
        return self.exit - self.entry

    def breakeven(self, rules: ExitRules) -> int:
        """Entry plus the costs of leaving."""
        return _floor(self.entry + self.spread + rules.breakeven_extra * abs(self.entry))

    def protected(self, rules: ExitRules) -> bool:
        """Breakeven is confirmed, or whoever moved the stop has done as much."""
        return self._breakeven_triggered or (self.stop is not None and self.stop >= self.breakeven(rules) - SNAP)

    def improves(self, level: float, least: float) -> bool:
        """The level is better than the present stop by at least so many points."""
        return self.stop is None or level - self.stop >= least - SNAP

    def price(self, level: int) -> float:
        """A level as a price."""
        return _units(self._sign * level, self._point)


def _breakeven(seen: _Seen, rules: ExitRules) -> MoveStop | None:
    if seen.risk is None or seen.gain < rules.breakeven_at_r * seen.risk - SNAP:
        return None
    level = seen.breakeven(rules)
    if level > seen.legal + SNAP or not seen.improves(level, 1):
        return None
    return MoveStop(purpose=PURPOSE_BREAKEVEN, stop=seen.price(level))


def _trail(seen: _Seen, rules: ExitRules) -> MoveStop | None:
    if seen.risk is None or seen.atr is None:
        return None
    level = _floor(min(seen.exit - rules.trail_atr * seen.atr, seen.legal))
    if not seen.improves(level, max(1, rules.trail_step_r * seen.risk)):
        return None
    return MoveStop(purpose=PURPOSE_TRAIL, stop=seen.price(level))


def _partial(trade: TradeView, quote: QuoteView, seen: _Seen, rules: ExitRules) -> TakePartial | None:
    if trade.partial_taken or seen.target is None:
        return None
    way = seen.target - seen.entry
    if way <= 0 or seen.gain < rules.partial_at * way - SNAP:
        return None
    step = quote.volume_step
    part = _floor(trade.volume * rules.partial_fraction / step)
    rest = trade.volume / step - part
    least = max(quote.volume_min / step, 1) - SNAP
    if part < least or rest < least:
        return None
    return TakePartial(volume=_units(part, step))


def _points(price: float, point: float) -> float:
    """A price in points, freed of the noise of the division."""
    return round(price / point, 6)


def _floor(value: float) -> int:
    return math.floor(value + SNAP)


def _units(count: int, unit: float) -> float:
    """`count` times `unit` as the nearest double of the decimal number that is meant."""
    per_one = round(1 / unit)
    return count / per_one if per_one > 0 and abs(per_one * unit - 1) < SNAP else count * unit
