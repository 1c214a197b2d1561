"""N of the Turtles: how far a bar usually goes."""

from __future__ import annotations

from dtms_service.bars import ClosedBar


class AverageRange:
    """Wilder's average of the true range over ``PERIOD`` bars, as a price distance."""

    PERIOD = 20

    def __init__(self) -> None:
        self._first_ranges: list[float] = []
        self._close: float | None = None
        self.n: float | None = None
        """None until so many bars have closed."""

    def add(self, bar: ClosedBar) -> None:
        true_range = self._true_range(bar)
        self._close = bar.close
        if self.n is not None:
            self.n = ((self.PERIOD - 1) * self.n + true_range) / self.PERIOD
            return
        self._first_ranges.append(true_range)
        if len(self._first_ranges) == self.PERIOD:
            self.n = sum(self._first_ranges) / self.PERIOD
            self._first_ranges.clear()

    def _true_range(self, bar: ClosedBar) -> float:
        if self._close is None:
            return bar.high - bar.low
        return max(bar.high, self._close) - min(bar.low, self._close)
