"""Latency histograms in constant memory."""

from __future__ import annotations

import math
from dataclasses import dataclass

_PER_DECADE = 100  # buckets a decade: 2.3 % relative error
_DECADES = 9  # 1 ns .. 1 s; slower ones share the last bucket, max is kept exactly


@dataclass(frozen=True, slots=True)
class LatencyFigures:
    """Microseconds; all zero when nothing was measured."""

    count: int
    p50_us: float
    p99_us: float
    max_us: float


class Latencies:
    """Counts of durations in logarithmic buckets."""

    __slots__ = ("_buckets", "_count", "_max_ns")

    def __init__(self) -> None:
        self._buckets = [0] * (_PER_DECADE * _DECADES + 1)
        self._count = 0
        self._max_ns = 0

    def add(self, duration_ns: int) -> None:
        index = int(math.log10(duration_ns) * _PER_DECADE) if duration_ns > 1 else 0
        self._buckets[min(index, len(self._buckets) - 1)] += 1
        self._count += 1
        self._max_ns = max(self._max_ns, duration_ns)

    def figures(self) -> LatencyFigures:
        return LatencyFigures(self._count, self._quantile(0.50), self._quantile(0.99), self._max_ns / 1e3)

    def _quantile(self, q: float) -> float:
        rank, seen = math.ceil(q * self._count), 0
        if not rank:
            return 0.0
        for index, n in enumerate(self._buckets):
            seen += n
            if seen >= rank:
                return float(min(10 ** ((index + 0.5) / _PER_DECADE), self._max_ns) / 1e3)
        return self._max_ns / 1e3
