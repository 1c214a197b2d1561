"""Bars as ticks: the documented path that the paper broker lets a price take inside a bar."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum


class FirstExtreme(Enum):
    LOW = "low"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class Bar:
    """A closed bar of bid prices. ``time_msc`` is its start (UTC), ``spread`` what the ask stands above every bid."""

    time_msc: int
    period_ms: int
    open: float
    high: float
    low: float
    close: float
    spread: float
    tick_volume: int

    def __post_init__(self) -> None:
        if not (0 < self.low <= min(self.open, self.close) and max(self.open, self.close) <= self.high):
            raise ValueError(f"bar at {self.time_msc}: open, high, low, close do not fit together")
        if not (0 <= self.spread < float("inf")):
            raise ValueError(f"bar at {self.time_msc}: spread {self.spread} is not a distance")
        if self.period_ms < 4 or self.tick_volume < 0:
            raise ValueError(f"bar at {self.time_msc}: period_ms or tick_volume out of range")


def bar_ticks(bar: Bar, first: FirstExtreme | None = None) -> Iterator[tuple[int, float, float, int]]:
    """Yield (time_msc, bid, ask, volume) for open, the first extreme, the other extreme, close.

    They stand at 0, 1/4, 1/2 and 3/4 of the period, so that each lies inside the bar; the volumes sum exactly to
    ``tick_volume``. ``first`` is the extreme that hurts the position held: low for a long, high for a short. Without
    one it is the low when the bar closes above its open, else the high.
    """
    if first is None:
        first = FirstExtreme.LOW if bar.close > bar.open else FirstExtreme.HIGH
    middle = (bar.low, bar.high) if first is FirstExtreme.LOW else (bar.high, bar.low)
    share, rest = divmod(bar.tick_volume, 4)
    for index, bid in enumerate((bar.open, *middle, bar.close)):
        yield bar.time_msc + index * bar.period_ms // 4, bid, bid + bar.spread, share + (1 if index < rest else 0)
