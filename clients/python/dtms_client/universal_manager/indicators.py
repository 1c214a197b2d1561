"""What the Universal Manager reads in closed bars: ATR and its mean, swings, breaks, impulses. O(1) a bar.

A forming bar is never seen, and a swing ends before the bar that is compared with it. Turn the prices upside down, and
highs and lows change places in every reading.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

ATR_BARS: Final = 14
BASELINE_BARS: Final = 50
"""ATRs in the mean that volatility is measured against; as in the score."""

SIDE_BARS: Final = 2
"""Bars on each side that a swing stands out from; as in the score."""

# Body and range of an impulse. The share of the body is that of the score's candle of conviction, which needs 0.8 ATR
# of range: with 1.5 ATR it takes what traders call displacement, a move that the bars before did not know.
IMPULSE_BODY: Final = 0.65
IMPULSE_ATR: Final = 1.5


@dataclass(frozen=True, slots=True)
class Bar:
    """A closed bar of bid prices."""

    open: float
    high: float
    low: float
    close: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What the bars so far say; prices of bids, ATR as price distances. None: there is none (yet)."""

    atr: float | None = None
    """ATR(14) by Wilder."""
    baseline: float | None = None
    """Mean of the last 50 ATRs."""
    swing_high: float | None = None
    """Last confirmed one."""
    swing_low: float | None = None
    shift_high: float | None = None
    """Where the leg began that last broke structure downward, in a trend that began with a change of character."""
    shift_low: float | None = None
    """The same upward."""
    impulse_high: float | None = None
    """Where the last impulse downward began; until a close beyond it, or a later swing high."""
    impulse_low: float | None = None
    """The same upward."""


class Atr:
    """Average true range by Wilder: the mean of the first ones, then smoothed. The first bar gives only its close."""

    __slots__ = ("_close", "_count", "_sum", "value")

    def __init__(self) -> None:
        self._close: float | None = None
        self._count = 0
        self._sum = 0.0
        self.value: float | None = None

    def update(self, bar: Bar) -> float | None:
        """Takes a bar; the ATR with it, None until warm."""
        before, self._close = self._close, bar.close
        if before is None:
            return None
        true_range = max(bar.high - bar.low, abs(bar.high - before), abs(bar.low - before))
        if self.value is not None:
            self.value = (self.value * (ATR_BARS - 1) + true_range) / ATR_BARS
        else:
            self._count += 1
            self._sum += true_range
            if self._count == ATR_BARS:
                self.value = self._sum / ATR_BARS
        return self.value


class Mean:
    """Mean of the last values, None until there are enough."""

    __slots__ = ("_sum", "_values")

    def __init__(self, count: int) -> None:
        self._values: deque[float] = deque(maxlen=count)
        self._sum = 0.0

    def update(self, value: float) -> float | None:
        """Takes a value."""
        values = self._values
        if len(values) == values.maxlen:
            self._sum -= values[0]
        values.append(value)
        self._sum += value
        return self._sum / len(values) if len(values) == values.maxlen else None


class Breaks:
    """Structure of one direction: the swings above the price, the closes that break them, and where those legs began.

    Written for breaks upward; a `sign` of -1 turns prices upside down.
    """

    __slots__ = ("_bars", "_broken", "_floor", "_sign", "confirmed", "origin", "swing")

    def __init__(self, sign: int) -> None:
        self._sign = sign
        self._bars: deque[tuple[float, float]] = deque(maxlen=2 * SIDE_BARS + 1)
        self.swing: float | None = None
        """Last confirmed swing high, broken or not."""
        self.confirmed = False
        """By the last bar."""
        self._broken = False
        self._floor = 0.0
        """Lowest low since that swing."""
        self.origin = 0.0
        """Where the leg of the last break began."""

    def update(self, bar: Bar) -> bool:
        """Takes a bar; true when its close breaks a swing that was confirmed before it."""
        top, bottom = (bar.high, bar.low) if self._sign > 0 else (-bar.low, -bar.high)
        self._floor = min(self._floor, bottom)
        breaks = self.swing is not None and not self._broken and self._sign * bar.close > self.swing
        if breaks:
            self._broken = True
            self.origin = self._floor
        self._bars.append((top, bottom))
        self._confirm()
        return breaks

    def _confirm(self) -> None:
        """A high strictly above those before it and not below those after it: of equal ones the first counts."""
        self.confirmed = False
        if len(self._bars) < 2 * SIDE_BARS + 1:
            return
        tops = [top for top, _ in self._bars]
        high = tops[SIDE_BARS]
        if high > max(tops[:SIDE_BARS]) and high >= max(tops[SIDE_BARS + 1 :]):
            self.confirmed = True
            self.swing = high
            self._broken = False
            self._floor = min(bottom for _, bottom in list(self._bars)[SIDE_BARS:])


class Impulse:
    """The last displacement in one direction, while it stands. Written upward, as `Breaks`."""

    __slots__ = ("_age", "_sign", "origin")

    def __init__(self, sign: int) -> None:
        self._sign = sign
        self._age = 0
        self.origin: float | None = None
        """Low of its candle."""

    def update(self, bar: Bar, atr_before: float | None, *, pulled_back: bool) -> None:
        """Takes a bar. `atr_before`: without the bar, so that it is not measured against itself; `pulled_back`: the bar
        confirms a swing low."""
        sign, reach = self._sign, bar.high - bar.low
        body = sign * (bar.close - bar.open)
        self._age += 1
        if atr_before is not None and reach >= IMPULSE_ATR * atr_before > 0 and body >= IMPULSE_BODY * reach:
            self.origin = bar.low if sign > 0 else -bar.high
            self._age = 0
        elif self.origin is not None and (
            # The swing is younger than the impulse: it is the better level now.
            sign * bar.close < self.origin or (pulled_back and self._age > SIDE_BARS)
        ):
            self.origin = None


class Chart:
    """Bars of one length of one symbol."""

    __slots__ = ("_atr", "_baseline", "_down", "_falls", "_rises", "_shifted", "_time_s", "_trend", "_up", "reading")

    def __init__(self) -> None:
        self._time_s = -1
        self._atr = Atr()
        self._baseline = Mean(BASELINE_BARS)
        self._up, self._down = Breaks(1), Breaks(-1)
        self._rises, self._falls = Impulse(1), Impulse(-1)
        self._trend = 0
        self._shifted = False
        """The trend began with a change of character, not with the first break ever."""
        self.reading = Reading()

    def take(self, time_s: int, bar: Bar) -> bool:
        """Takes the next closed bar by its opening time; false for one that is late or known."""
        if time_s <= self._time_s:
            return False
        self._time_s = time_s
        atr_before = self._atr.value
        atr = self._atr.update(bar)
        baseline = self._baseline.update(atr) if atr is not None else None
        for side, breaks in ((1, self._up.update(bar)), (-1, self._down.update(bar))):
            if breaks and self._trend != side:
                self._shifted = self._trend == -side
                self._trend = side
        self._rises.update(bar, atr_before, pulled_back=self._down.confirmed)
        self._falls.update(bar, atr_before, pulled_back=self._up.confirmed)
        self.reading = Reading(
            atr=atr,
            baseline=baseline,
            swing_high=self._up.swing,
            swing_low=_turned(self._down.swing),
            shift_high=-self._down.origin if self._shifted and self._trend < 0 else None,
            shift_low=self._up.origin if self._shifted and self._trend > 0 else None,
            impulse_high=_turned(self._falls.origin),
            impulse_low=self._rises.origin,
        )
        return True


def _turned(level: float | None) -> float | None:
    return None if level is None else -level
