"""One symbol at the paper broker: its rules, its last quote, its open positions and the levels that watch the price."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

from dtms_service.broker.door import Side, SymbolSpec
from dtms_service.broker.mt5_enums import DealReason
from dtms_service.broker.paper_config import SymbolTrading, check_spec, volume_steps

TICKS_KEPT = 20_000  # per symbol, what copy_ticks_* and copy_rates_* can see: about 3 MB a symbol
_NEVER = 2**62  # points that no price reaches


@dataclass(slots=True)
class PaperPosition:
    """An open position. ``steps`` counts volume steps, ``sl_points``/``tp_points`` count points (0: no level)."""

    ticket: int
    identifier: int
    market: Market
    side: Side
    steps: int
    price_open: float
    sl_points: int
    tp_points: int
    time_msc: int
    time_update_msc: int
    magic: int
    comment: str
    reason: DealReason
    unit_margin: float  # account currency per lot, fixed at the opening rate
    swap_minor: int = 0
    close_order: int = 0  # ticket of an accepted closing order that has not been filled yet
    exit: DealReason | None = None  # triggered, waits for the next tick (SlippageModel.NEXT_TICK)

    @property
    def volume(self) -> float:
        return self.market.lots(self.steps)

    @property
    def sl(self) -> float | None:
        return self.market.price(self.sl_points) if self.sl_points else None

    @property
    def tp(self) -> float | None:
        return self.market.price(self.tp_points) if self.tp_points else None

    @property
    def sign(self) -> int:
        return 1 if self.side is Side.BUY else -1

    @property
    def busy(self) -> bool:
        return self.close_order != 0 or self.exit is not None


@dataclass(slots=True)
class Leg:
    """Sums over a symbol's positions of one side, so that a tick values all of them at once.

    ``value`` is steps x opening price, ``worth`` steps x unit margin.
    """

    steps: int = 0
    value: float = 0.0
    worth: float = 0.0

    def add(self, steps: int, price: float, unit_margin: float) -> None:
        self.steps += steps
        self.value += steps * price
        self.worth += steps * unit_margin


@dataclass(slots=True)
class Market:
    spec: SymbolSpec
    trading: SymbolTrading
    bid_points: int = 0  # 0: no quote yet
    ask_points: int = 0
    bid: float = 0.0
    ask: float = 0.0
    time_msc: int = 0
    extra_spread_points: int = 0
    converts: bool = False  # the quote also converts another symbol's money
    positions: dict[int, PaperPosition] = field(default_factory=dict)
    ticks: deque[tuple[int, float, float, int]] = field(default_factory=lambda: deque(maxlen=TICKS_KEPT))
    changed: list[Market] = field(default_factory=list)  # shared with the book: markets whose sums it must renew
    long: Leg = field(default_factory=Leg)
    short: Leg = field(default_factory=Leg)
    swap_minor: int = 0
    margin_minor: int = 0  # as the book last counted it
    floating_micro: int = 0  # likewise
    ready: bool = False  # the quote and the rates that value its positions are known
    outdated: bool = False  # positions have changed since the sums and levels here were computed
    exiting: bool = False  # some position waits for the next tick to leave
    sl_long: int = 0
    tp_long: int = _NEVER
    sl_short: int = _NEVER
    tp_short: int = 0

    def __post_init__(self) -> None:
        check_spec(self.spec)

    def points(self, price: float) -> int:
        return round(price / self.spec.point)

    def price(self, points: int) -> float:
        return round(points * self.spec.point, self.spec.digits)

    def lots(self, steps: int) -> float:
        return round(steps * self.spec.volume_step, 8)

    def steps(self, volume: float) -> int | None:
        return volume_steps(self.spec, volume)

    @property
    def quoted(self) -> bool:
        return self.bid_points > 0

    def check_quote(self, bid: float, ask: float) -> None:
        """Raise ValueError for prices no market has (NaN included)."""
        if not (0.0 < bid <= ask < math.inf) or self.points(bid) < 1:
            raise ValueError(f"{self.spec.name}: bid {bid} and ask {ask} are not a quote")

    def quote(self, time_msc: int, bid: float, ask: float, volume: int) -> None:
        """Take a checked quote, rounded to whole points."""
        self.bid_points, self.ask_points = self.points(bid), self.points(ask) + self.extra_spread_points
        self.bid, self.ask = self.price(self.bid_points), self.price(self.ask_points)
        self.time_msc = time_msc
        self.ticks.append((time_msc, self.bid, self.ask, volume))

    def open_price(self, side: Side) -> float:
        return self.ask if side is Side.BUY else self.bid

    def close_price(self, side: Side) -> float:
        return self.bid if side is Side.BUY else self.ask

    def close_points(self, side: Side) -> int:
        return self.bid_points if side is Side.BUY else self.ask_points

    def crossed(self) -> bool:
        """Whether the last quote reaches any level of any position."""
        return (
            self.bid_points <= self.sl_long
            or self.bid_points >= self.tp_long
            or self.ask_points >= self.sl_short
            or self.ask_points <= self.tp_short
        )

    def reached(self) -> list[tuple[PaperPosition, DealReason, int]]:
        """Positions whose stop or target the last quote reaches, with that level, in points; those that leave already
        left out. A stop comes before a target."""
        found: list[tuple[PaperPosition, DealReason, int]] = []
        bid, ask = self.bid_points, self.ask_points
        for position in self.positions.values():
            sl, tp = position.sl_points, position.tp_points
            if position.side is Side.BUY:
                is_stopped, is_reached = bid <= sl, bid >= tp
            else:
                is_stopped, is_reached = ask >= sl, ask <= tp
            if position.exit is not None:
                continue
            if sl and is_stopped:
                found.append((position, DealReason.SL, sl))
            elif tp and is_reached:
                found.append((position, DealReason.TP, tp))
        return found

    def outdate(self) -> None:
        """A position has changed. One tick may close hundreds: what depends on all of them is computed when it is
        needed next, see :meth:`refresh`."""
        if not self.outdated:
            self.outdated = True
            self.changed.append(self)

    def refresh(self) -> None:
        """Before a look at anything that depends on the set of positions."""
        if self.outdated:
            self.rewatch()

    def rewatch(self) -> None:
        """Recompute what depends on the set of positions."""
        if not self.outdated:
            self.changed.append(self)
        self.outdated = False
        # Thousands of positions on every tick that closes one: local names, one turn.
        sl_long, tp_long, sl_short, tp_short = 0, _NEVER, _NEVER, 0
        long, short, swap_minor, exiting = Leg(), Leg(), 0, False
        for position in self.positions.values():
            steps, swap_minor = position.steps, swap_minor + position.swap_minor
            leg = long if position.side is Side.BUY else short
            leg.steps += steps
            leg.value += steps * position.price_open
            leg.worth += steps * position.unit_margin
            if position.exit is not None:
                exiting = True
                continue
            sl, tp = position.sl_points, position.tp_points
            if leg is long:
                sl_long = max(sl_long, sl)
                tp_long = tp if 0 < tp < tp_long else tp_long
            else:
                sl_short = sl if 0 < sl < sl_short else sl_short
                tp_short = max(tp_short, tp)
        self.sl_long, self.tp_long, self.sl_short, self.tp_short = sl_long, tp_long, sl_short, tp_short
        self.long, self.short, self.swap_minor, self.exiting = long, short, swap_minor, exiting

    def watch(self, position: PaperPosition) -> None:
        """Watch the position's levels too. Levels it had before may still be watched: a false alarm, cleared by the
        next :meth:`rewatch`."""
        if position.side is Side.BUY:
            self.sl_long = max(self.sl_long, position.sl_points)
            self.tp_long = min(self.tp_long, position.tp_points or _NEVER)
        else:
            self.sl_short = min(self.sl_short, position.sl_points or _NEVER)
            self.tp_short = max(self.tp_short, position.tp_points)
