"""What the Universal Manager wants of a trade: breakeven, partial, trailing. Pure; no clock, no I/O.

It moves stops and takes parts, and never touches a target. A level that is absent is none, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping

from dtms.v1.action_pb2 import PURPOSE_BREAKEVEN, PURPOSE_TRAIL
from dtms_client.managing.brain import NANOS
from dtms_client.managing.points import SNAP
from dtms_client.managing.seen import Seen, part
from dtms_client.managing.views import QuoteView, TradeView
from dtms_client.managing.wishes import MoveStop, TakePartial, Wish
from dtms_client.universal_manager.indicators import Reading
from dtms_client.universal_manager.strategies import FrozenRules
from dtms_client.universal_manager.trailing import LEVELS, Ground, volatility

NOTHING_READ = Reading()


def deferral(trade: TradeView, *, manager: str) -> str | None:
    """Why `manager` keeps its hands off the trade; None when it may act."""
    if (why := trade.reserved) is not None:
        return why
    if trade.managed_by != manager:
        return "owned by another"
    return None


def decide(
    trade: TradeView,
    quote: QuoteView,
    rules: FrozenRules,
    readings: Mapping[int, Reading],
    *,
    manager: str,
    now_ns: int,
) -> list[Wish]:
    """What to ask for now, the most urgent first. `readings`: by length of the bars, s."""
    if not quote.usable or deferral(trade, manager=manager) is not None:
        return []
    seen = Seen(trade, quote)
    structure = readings.get(rules.structure_s or 0, NOTHING_READ)
    distance = readings.get(rules.atr_s or 0, NOTHING_READ)
    if trade.breakeven_triggered:
        stop = trail(seen, trade, rules, structure, distance, now_ns=now_ns)
    else:
        stop = breakeven(seen, rules)
    return [wish for wish in (stop, partial(seen, trade, quote, rules, distance)) if wish is not None]


def breakeven(seen: Seen, rules: FrozenRules) -> MoveStop | None:
    """The stop to where the trade costs nothing, once it is far enough ahead.

    A stop that others have put there already is no breakeven yet: it goes on by the least step, so that DTMS records
    the event.
    """
    if seen.risk is None or seen.gain < rules.breakeven_r * seen.risk - SNAP:
        return None
    level = seen.breakeven(rules.breakeven_extra)
    if seen.stop is not None:
        level = max(level, seen.beyond(seen.stop))
    return seen.move(PURPOSE_BREAKEVEN, level) if level <= seen.legal + SNAP else None


def trail(
    seen: Seen, trade: TradeView, rules: FrozenRules, structure: Reading, distance: Reading, *, now_ns: int
) -> MoveStop | None:
    """After breakeven: the stop to where the strategy wants it, in steps that are worth a change."""
    if seen.risk is None or now_ns - trade.last_change_ns < rules.cooldown_s * NANOS:
        return None
    wanted = LEVELS[rules.trailing](Ground.of(seen, trade.sign, rules, structure, distance))
    if wanted is None:
        return None
    level = seen.round(min(wanted, seen.legal))
    return seen.move(PURPOSE_TRAIL, level) if seen.improves(level, max(1, rules.step_r * seen.risk)) else None


def partial(
    seen: Seen, trade: TradeView, quote: QuoteView, rules: FrozenRules, distance: Reading
) -> TakePartial | None:
    """A part of the volume off, once, and sooner in a wild market. What others have closed counts: two managers that
    each close a half would leave nothing."""
    if trade.partial_taken or rules.partial_r is None or seen.risk is None or trade.volume <= 0:
        return None
    now = volatility(distance)
    wild = now is not None and now > rules.early_above
    if seen.gain < rules.partial_r * (rules.early_x if wild else 1.0) * seen.risk - SNAP:
        return None
    too_much = 1 - (1 - rules.partial_fraction) * trade.initial_volume / trade.volume
    return part(trade, quote, too_much) if too_much > 0 else None
