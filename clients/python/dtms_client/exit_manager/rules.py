"""What the exit manager wants of a trade: breakeven, partial, trailing. Pure; no clock, no I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from dtms.v1.action_pb2 import PURPOSE_BREAKEVEN, PURPOSE_TRAIL
from dtms.v1.ownership_pb2 import RANK_STRATEGY
from dtms_client.managing.points import SNAP
from dtms_client.managing.seen import Seen, part
from dtms_client.managing.views import DEFENSIVE, OPEN_TO_OTHERS, QuoteView, TradeView
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
    seen = Seen(trade, quote)
    stop = breakeven(seen, rules) if not seen.protected(rules.breakeven_extra) else trail(seen, rules)
    return [wish for wish in (stop, partial(trade, quote, seen, rules)) if wish is not None]


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


def partial(trade: TradeView, quote: QuoteView, seen: Seen, rules: ExitRules) -> TakePartial | None:
    """A part of the volume off on the way to the target, once."""
    if trade.partial_taken or seen.target is None:
        return None
    way = seen.target - seen.entry
    if way <= 0 or seen.gain < rules.partial_at * way - SNAP:
        return None
    return part(trade, quote, rules.partial_fraction)
