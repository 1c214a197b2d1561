"""The market from the side of the trade.

All sums are done in points; for a SELL every price changes its sign, so that "higher" always means "better for the
trade" and both sides share one rule. Rounding down is then rounding away from the price.
"""

from __future__ import annotations

from dtms.v1.action_pb2 import Purpose
from dtms_client.managing.points import SNAP, floor, points, units
from dtms_client.managing.views import QuoteView, TradeView
from dtms_client.managing.wishes import MoveStop, TakePartial


class Seen:
    """A trade and a usable quote, in points. `atr`, `risk`, `spread` are distances, the others levels."""

    __slots__ = (
        "_breakeven_triggered",
        "_grid",
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
        self._grid = max(1, round(quote.tick_size / point))
        self._breakeven_triggered = trade.breakeven_triggered
        bid, ask = points(quote.bid, point), points(quote.ask, point)
        self.spread = ask - bid
        self.exit = bid if trade.sign > 0 else -ask
        self.entry = self.level(trade.entry)
        self.stop = None if trade.stop is None else self.level(trade.stop)
        self.target = None if trade.target is None else self.level(trade.target)
        self.risk = None if trade.risk is None else points(trade.risk, point)
        self.atr = None if quote.atr is None else quote.atr / point
        # The best stop that the broker takes; a stop at the price itself is none.
        self.legal = self.exit - max(quote.stops_level, 1)

    @property
    def gain(self) -> float:
        """Points ahead."""
        return self.exit - self.entry

    def level(self, price: float) -> float:
        """A price as a level."""
        return self._sign * points(price, self._point)

    def breakeven(self, extra: float) -> int:
        """Entry plus the costs of leaving; `extra` is a share of the entry price."""
        return self.round(self.entry + self.spread + extra * abs(self.entry))

    def protected(self, extra: float) -> bool:
        """Breakeven is confirmed, or whoever moved the stop has done as much."""
        return self._breakeven_triggered or (self.stop is not None and self.stop >= self.breakeven(extra) - SNAP)

    def improves(self, level: float, least: float) -> bool:
        """The level is better than the present stop by at least so many points."""
        return self.stop is None or level - self.stop >= least - SNAP

    def round(self, level: float) -> int:
        """The level that the broker takes at or behind this one."""
        return floor(level, self._grid)

    def round_up(self, level: float) -> int:
        """The level that the broker takes at this one or nearer to the price."""
        return -floor(-level, self._grid)

    def beyond(self, level: float) -> int:
        """The next level that the broker takes nearer to the price than this one."""
        return self.round(level) + self._grid

    def span(self, distance: float) -> float:
        """A price distance in points."""
        return points(distance, self._point)

    def price(self, level: int) -> float:
        """A level as a price."""
        return units(self._sign * level, self._point)

    def move(self, purpose: Purpose.ValueType, level: int, *, allow_loosen: bool = False) -> MoveStop:
        """The wish for a stop at a level."""
        return MoveStop(purpose=purpose, stop=self.price(level), allow_loosen=allow_loosen)


def part(trade: TradeView, quote: QuoteView, fraction: float) -> TakePartial | None:
    """The share of the volume in whole steps, down; None where the part or the rest would be too small."""
    step = quote.volume_step
    count = floor(trade.volume * fraction / step)
    rest = trade.volume / step - count
    least = max(quote.volume_min / step, 1) - SNAP
    if count < least or rest < least:
        return None
    return TakePartial(volume=units(count, step))
