"""What the exit manager wants of a trade: breakeven, partial, trailing, room in a nervous market.

Pure; no clock, no I/O.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from dtms.v1.action_pb2 import PURPOSE_BREAKEVEN, PURPOSE_TRAIL, PURPOSE_WIDEN
from dtms.v1.ownership_pb2 import RANK_PROFIT_PROTECTION, RANK_STRATEGY
from dtms.v1.trade_pb2 import TRADE_STATE_HEALTHY
from dtms_client.managing.points import SNAP
from dtms_client.managing.seen import Seen, part
from dtms_client.managing.views import QuoteView, TradeView
from dtms_client.managing.wishes import MoveStop, TakePartial, Wish


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
    vix_above: float = 18.0
    """Before breakeven the stop gets more room while VIX is above this."""
    vix_span: float = 10.0
    """So many points of VIX above it make the room larger by once `widen_atr`."""
    widen_atr: float = 1.5
    """The room that it gets begins at so many ATR(14) of the slow timeframe."""
    widen_most: float = 2.0
    """And ends at so many times that."""
    widen_step_r: float = 0.05
    """The stop is widened in steps of at least so many R."""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"{each.name}: {value!r} is not a number")
        for name in ("breakeven_at_r", "trail_atr", "vix_span", "widen_atr"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: must be above 0")
        for name in ("breakeven_extra", "trail_step_r", "vix_above", "widen_step_r"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: must not be below 0")
        for name in ("partial_at", "partial_fraction"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}: must be between 0 and 1")
        if self.widen_most < 1:
            raise ValueError("widen_most: must not be below 1")


def deferral(trade: TradeView) -> str | None:
    """Why the exit manager keeps its hands off the trade; None when it may act."""
    if (why := trade.reserved) is not None:
        return why
    if trade.owner_rank == RANK_STRATEGY and trade.breakeven_triggered:
        return "the strategy's owner takes over after breakeven"
    return None


def decide(trade: TradeView, quote: QuoteView, rules: ExitRules, *, vix: float | None) -> list[Wish]:
    """What to ask for now, the most urgent first; empty when all is as it should be. `vix` is None while unknown."""
    if not quote.usable or deferral(trade) is not None:
        return []
    seen = Seen(trade, quote)
    if seen.protected(rules.breakeven_extra):
        stop = trail(seen, rules)
    else:
        stop = breakeven(seen, rules) or widen(trade, seen, rules, vix)
    return [wish for wish in (stop, partial(trade, quote, seen, rules)) if wish is not None]


def decide_alone(trade: TradeView, quote: QuoteView, rules: ExitRules) -> Wish | None:
    """What may be done past DTMS while it is away: breakeven, else the partial. Both can only reduce the risk."""
    if not quote.usable or deferral(trade) is not None:
        return None
    seen = Seen(trade, quote)
    stop = None if seen.protected(rules.breakeven_extra) else breakeven(seen, rules)
    return stop or partial(trade, quote, seen, rules)


def breakeven(seen: Seen, rules: ExitRules) -> MoveStop | None:
    """The stop to where the trade costs nothing, once it is far enough ahead."""
    if seen.risk is None or seen.gain < rules.breakeven_at_r * seen.risk - SNAP:
        return None
    level = seen.breakeven(rules.breakeven_extra)
    if level > seen.legal + SNAP or not seen.improves(level, 1):
        return None
    return seen.move(PURPOSE_BREAKEVEN, level)


def trail(seen: Seen, rules: ExitRules) -> MoveStop | None:
    """The stop after the price, in steps that are worth a change."""
    if seen.risk is None or seen.atr is None:
        return None
    level = seen.round(min(seen.exit - rules.trail_atr * seen.atr, seen.legal))
    if not seen.improves(level, max(1, rules.trail_step_r * seen.risk)):
        return None
    return seen.move(PURPOSE_TRAIL, level)


def widen(trade: TradeView, seen: Seen, rules: ExitRules, vix: float | None) -> MoveStop | None:
    """More room for the stop while VIX is high: the only rule that moves it away, and never beyond the risk budget.

    A stop that a higher rank set stays, and so does that of a trade which is warned or has to prove itself.
    """
    if vix is None or vix <= rules.vix_above:
        return None
    if trade.state != TRADE_STATE_HEALTHY or trade.stop_rank > RANK_PROFIT_PROTECTION:
        return None
    if seen.stop is None or seen.risk is None or seen.atr is None or trade.volume <= 0:
        return None
    room = rules.widen_atr * seen.atr * min(rules.widen_most, 1 + (vix - rules.vix_above) / rules.vix_span)
    affordable = seen.risk * trade.risk_budget_r * trade.initial_volume / trade.volume
    level = max(seen.round(seen.entry - room), seen.round_up(seen.entry - affordable))
    if seen.stop - level < max(1, rules.widen_step_r * seen.risk) - SNAP:
        return None
    return seen.move(PURPOSE_WIDEN, level, allow_loosen=True)


def partial(trade: TradeView, quote: QuoteView, seen: Seen, rules: ExitRules) -> TakePartial | None:
    """A part of the volume off on the way to the target, once."""
    if trade.partial_taken or trade.part_off_outside or seen.target is None:
        return None
    way = seen.target - seen.entry
    if way <= 0 or seen.gain < rules.partial_at * way - SNAP:
        return None
    return part(trade, quote, rules.partial_fraction)
