"""Prices in points and volumes in steps, and back, free of the noise of doubles."""

from __future__ import annotations

import functools
import math
from typing import Final

# Prices and volumes come as doubles: whatever is nearer than this to a whole point or step is meant to be one.
SNAP: Final = 1e-6
# Levels of some thousand trades: they stand still while prices move past them.
REMEMBERED: Final = 16_384


@functools.lru_cache(maxsize=REMEMBERED)
def points(price: float, point: float) -> float:
    """A price in points, freed of the noise of the division."""
    return round(price / point, 6)


def floor(value: float, multiple: int = 1) -> int:
    """The largest multiple that is not above the value."""
    return multiple * math.floor(value / multiple + SNAP)


def units(count: int, unit: float) -> float:
    """`count` times `unit` as the nearest double of the decimal number that is meant."""
    per_one = round(1 / unit)
    return count / per_one if per_one > 0 and abs(per_one * unit - 1) < SNAP else count * unit
