"""copy_ticks_* and copy_rates_*: the kept ticks of a symbol as MetaTrader's numpy arrays.

numpy is imported here and only when an array is asked for; the broker itself runs without it.
Bars are built from bids of the kept ticks (market.TICKS_KEPT), so the oldest bar may lack its beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dtms_service.broker.market import Market

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RATES_DTYPE = [
    ("time", "<i8"),
    ("open", "<f8"),
    ("high", "<f8"),
    ("low", "<f8"),
    ("close", "<f8"),
    ("tick_volume", "<u8"),
    ("spread", "<i4"),
    ("real_volume", "<u8"),
]
TICKS_DTYPE = [
    ("time", "<i8"),
    ("bid", "<f8"),
    ("ask", "<f8"),
    ("last", "<f8"),
    ("volume", "<u8"),
    ("time_msc", "<i8"),
    ("flags", "<u4"),
    ("volume_real", "<f8"),
]
TICK_FLAGS = 0x02 | 0x04  # TICK_FLAG_BID | TICK_FLAG_ASK: a quote symbol has no last price
_MINUTES = (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30)
_HOURS = (1, 2, 3, 4, 6, 8, 12, 24)
_TIMEFRAMES = {m: 60 * m for m in _MINUTES} | {0x4000 | h: 3600 * h for h in _HOURS}


@dataclass(slots=True)
class Rate:
    time: int
    open: float
    high: float
    low: float
    close: float
    tick_volume: int
    spread: int


def period_seconds(timeframe: int) -> int | None:
    """Length of a TIMEFRAME_* (M1 to D1; weeks and months need more than the kept ticks), None for any other number."""
    return _TIMEFRAMES.get(timeframe)


def ticks_array(rows: Iterable[tuple[int, float, float, int]]) -> NDArray[np.void]:
    """Rows of (time_msc, bid, ask, volume) as TICKS_DTYPE."""
    return _array(((t // 1000, bid, ask, 0.0, 0, t, TICK_FLAGS, 0.0) for t, bid, ask, _ in rows), TICKS_DTYPE)


def rates_array(rates: Iterable[Rate]) -> NDArray[np.void]:
    rows = ((r.time, r.open, r.high, r.low, r.close, r.tick_volume, r.spread, 0) for r in rates)
    return _array(rows, RATES_DTYPE)


def rates(market: Market, period_s: int, offset_s: int) -> Iterator[Rate]:
    """Bars of the kept ticks, oldest first, in server time; a tick without volume counts as one."""
    bar: Rate | None = None
    for time_msc, bid, ask, volume in market.ticks:
        start = (time_msc // 1000 + offset_s) // period_s * period_s
        spread = market.points(ask) - market.points(bid)
        if bar is None or bar.time != start:
            if bar is not None:
                yield bar
            bar = Rate(start, bid, bid, bid, bid, volume or 1, spread)
            continue
        bar.high, bar.low, bar.close = max(bar.high, bid), min(bar.low, bid), bid
        bar.tick_volume += volume or 1
        bar.spread = min(bar.spread, spread)
    if bar is not None:
        yield bar


def _array(rows: Iterator[tuple[float, ...]], dtype: list[tuple[str, str]]) -> NDArray[np.void]:
    try:
        import numpy as np  # noqa: PLC0415 - optional, see the module's docstring
    except ImportError as error:
        raise ImportError("copy_ticks_* and copy_rates_* need the package numpy") from error
    return np.array(list(rows), dtype=dtype)
