"""Bars of bid prices, built from ticks."""

from __future__ import annotations

from typing import NamedTuple


class ClosedBar(NamedTuple):
    """A bar that no tick can change any more. ``time_s`` is its opening time, UTC."""

    time_s: int
    open: float
    high: float
    low: float
    close: float
    volume: float


class BarBuilder:
    """Bars of one length, aligned to 1970-01-01 UTC. A window without a tick has no bar."""

    __slots__ = ("_close", "_end_msc", "_high", "_low", "_open", "_period_ms", "_volume")

    def __init__(self, period_s: int) -> None:
        if period_s < 1:
            raise ValueError(f"period_s: must be at least 1, is {period_s}")
        self._period_ms = period_s * 1000
        self._end_msc = -1  # no bar yet
        self._open = self._high = self._low = self._close = self._volume = 0.0

    def add(self, time_msc: int, price: float, volume: float) -> ClosedBar | None:
        """Take a tick; answers with the bar that it closed by belonging to a later one. A volume of 0 counts as 1."""
        if time_msc < self._end_msc:
            if price > self._high:
                self._high = price
            elif price < self._low:
                self._low = price
            self._close = price
            self._volume += volume or 1.0
            return None
        closed = None
        if self._end_msc >= 0:
            start_s = (self._end_msc - self._period_ms) // 1000
            closed = ClosedBar(start_s, self._open, self._high, self._low, self._close, self._volume)
        self._end_msc = time_msc - time_msc % self._period_ms + self._period_ms
        self._open = self._high = self._low = self._close = price
        self._volume = volume or 1.0
        return closed
