"""Entries that know nothing of the market: both sides, by the clock."""

from __future__ import annotations

from collections.abc import Collection

from dtms_service.bars import ClosedBar
from dtms_service.broker.door import Side
from dtms_service.history import Tick
from dtms_service.replay.entries import Entry, Level, LevelKind, check_parameters
from dtms_service.replay.true_range import AverageRange


class OnTheClock:
    """One trade on each side at the first tick at or after every whole ``every_s`` s of UTC, whatever is open.

    Stop and target stand as those of the breakout do: ``stop_atr`` x N away and ``target_r`` times as far, N being the
    20-bar Wilder average of the true range. Half of the trades are wrong from the start, and nobody has chosen which:
    what a run of it earns says something of the exits, and nothing of the entries. A time that passes without a tick
    or before N is known is let go.
    """

    def __init__(
        self, *, timeframe_s: int, every_s: int, volume: float, stop_atr: float = 2.0, target_r: float = 3.0
    ) -> None:
        check_parameters(
            {"volume": volume, "stop_atr": stop_atr, "target_r": target_r},
            {"timeframe_s": timeframe_s, "every_s": every_s},
        )
        self._timeframe_s, self._every_ms = timeframe_s, every_s * 1000
        self._volume, self._stop_atr, self._target_r = volume, stop_atr, target_r
        self._range = AverageRange()
        self._next_msc: int | None = None

    @property
    def timeframe_s(self) -> int:
        return self._timeframe_s

    def on_bar(self, bar: ClosedBar) -> None:
        self._range.add(bar)

    def on_tick(self, tick: Tick, open_sides: Collection[Side]) -> list[Entry]:  # noqa: ARG002  # of the protocol
        if self._next_msc is None:
            self._next_msc = -(-tick.time_msc // self._every_ms) * self._every_ms
        if tick.time_msc < self._next_msc:
            return []
        self._next_msc = (tick.time_msc // self._every_ms + 1) * self._every_ms
        if not self._range.n:
            return []
        distance = self._stop_atr * self._range.n
        stop, target = Level(LevelKind.DISTANCE, distance), Level(LevelKind.DISTANCE, self._target_r * distance)
        return [Entry(side, self._volume, stop, target) for side in (Side.BUY, Side.SELL)]

    def missed(self) -> list[str]:
        return []
