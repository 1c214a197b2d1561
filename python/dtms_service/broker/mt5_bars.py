"""Closed bars of a terminal's history, in UTC: the terminal's own begin where its server's clock says so.

Bars here are aligned to 1970-01-01 UTC. Where the server's offset shifts the terminal's bars of a length against them
(four-hour bars at UTC+3), they are put together from bars short enough to fit both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from dtms_service.bars import ClosedBar
from dtms_service.broker.mt5_enums import Timeframe
from dtms_service.broker.mt5_inferences import TICK_AGE_MOST_MS
from dtms_service.broker.mt5_package import RateRow
from dtms_service.broker.server_time import ServerTime

LENGTHS_S: Final = {
    60: Timeframe.M1,
    300: Timeframe.M5,
    900: Timeframe.M15,
    3_600: Timeframe.H1,
    14_400: Timeframe.H4,
}
"""Lengths that are read, s."""


def length_to_read(timeframe_s: int, time: ServerTime) -> int:
    """The longest length that fits into ``timeframe_s`` and begins at the same moments on both clocks.

    Raises KeyError for a length that is not read, OffsetUnknown.
    """
    offsets = time.offsets_s()
    if timeframe_s not in LENGTHS_S:
        raise KeyError(timeframe_s)
    fitting = (
        length
        for length in LENGTHS_S
        if timeframe_s % length == 0 and all(offset_s % length == 0 for offset_s in offsets)
    )
    return max(fitting, default=min(LENGTHS_S))


def closed_bars(
    rows: Iterable[RateRow], read_s: int, timeframe_s: int, time: ServerTime, now_msc: int
) -> list[ClosedBar]:
    """Bars of ``timeframe_s`` from the terminal's of ``read_s``, oldest first; ``now_msc`` is UTC.

    The terminal's last one is still forming, unless its end is long past (a closed market).
    """
    read = [_bar(row, time) for row in rows]
    if not read:
        return []
    last = read[-1]
    # Everything that ends by then can change no more.
    over_s = max(last.time_s, (now_msc - TICK_AGE_MOST_MS) // 1000)
    closed = [bar for bar in read if bar.time_s + read_s <= over_s]
    return closed if read_s == timeframe_s else _longer(closed, timeframe_s, over_s)


def _bar(row: RateRow, time: ServerTime) -> ClosedBar:
    start_s = time.to_utc_msc(int(row["time"]) * 1000) // 1000
    return ClosedBar(
        start_s,
        float(row["open"]),
        float(row["high"]),
        float(row["low"]),
        float(row["close"]),
        float(row["tick_volume"]),
    )


def _longer(bars: Sequence[ClosedBar], timeframe_s: int, over_s: int) -> list[ClosedBar]:
    """The first one counts only if it is there from its beginning."""
    made: dict[int, ClosedBar] = {}
    for bar in bars:
        start_s = bar.time_s - bar.time_s % timeframe_s
        known = made.get(start_s)
        if known is None:
            made[start_s] = bar._replace(time_s=start_s)
        else:
            made[start_s] = ClosedBar(
                start_s,
                known.open,
                max(known.high, bar.high),
                min(known.low, bar.low),
                bar.close,
                known.volume + bar.volume,
            )
    if bars and bars[0].time_s % timeframe_s:
        del made[min(made)]
    return [bar for start_s, bar in made.items() if start_s + timeframe_s <= over_s]
