"""What a live gateway reads again and again: the ticks since the last look, and whether any position has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from dtms_service.broker.door import AccountInfo, Position
from dtms_service.broker.mt5_package import TickRow
from dtms_service.broker.server_time import ServerTime

TICKS_MAX: Final = 1_000  # of one symbol in one look: a burst is taken in several, each short for the thread


@dataclass(frozen=True, slots=True)
class Price:
    """Time in ms UTC, bid and ask in quote currency."""

    time_msc: int
    bid: float
    ask: float


@dataclass(frozen=True, slots=True)
class Look:
    """``ticks`` by symbol, in order of time, only those that are new; ``change_count`` rises with each change of any
    position's volume, levels or existence, and means nothing from one process to the next.

    ``positions`` are None while an order is on its way that they do not show yet.
    """

    ticks: dict[str, list[Price]]
    change_count: int
    positions: list[Position] | None
    account: AccountInfo


@dataclass(frozen=True, slots=True)
class Cursor:
    """Server time of the newest tick taken, and how many ticks of that millisecond were taken."""

    time_msc: int
    taken: int


RowsFrom = Callable[[int, int], Iterable[TickRow]]
"""Ticks from a second (server time) on, at most a number of them."""


@dataclass(slots=True)
class Prices:
    """Used from the thread that owns the package. ``now_msc`` is UTC."""

    time: ServerTime
    now_msc: Callable[[], int]
    _cursors: dict[str, Cursor] = field(default_factory=dict)
    _newest: dict[str, int] = field(default_factory=dict)
    _seen: dict[int, tuple[object, ...]] | None = None
    _change_count: int = 0

    def restart(self) -> None:
        """Forget what was taken: the next look begins with the prices of now. Old ones are no ground for a decision."""
        self._cursors.clear()
        self._newest.clear()

    def observe(self, symbol: str, newest_msc: int) -> None:
        """The time of the symbol's last tick (server time). One that moved between two looks shows what time it is."""
        before = self._newest.get(symbol, newest_msc)
        self._newest[symbol] = newest_msc
        if newest_msc > before:
            self.time.observe(newest_msc, self.now_msc())

    def take(self, symbol: str, newest_msc: int, rows_from: RowsFrom) -> tuple[list[Price], Cursor | None]:
        """The ticks after those that were taken, and the cursor behind them, which :meth:`taken` then accepts.

        ``newest_msc`` is the time of the symbol's last tick (server time, 0: it has none). The first look takes that
        one only; what shares the newest millisecond comes with the next tick. Raises OffsetUnknown.
        """
        cursor = self._cursors.get(symbol)
        if not newest_msc or (cursor is not None and newest_msc <= cursor.time_msc):
            return [], cursor
        if cursor is None:
            cursor = Cursor(newest_msc, 0)
        prices: list[Price] = []
        for row in _after(rows_from, cursor):
            time_msc = int(row["time_msc"])
            cursor = Cursor(time_msc, cursor.taken + 1 if time_msc == cursor.time_msc else 1)
            bid, ask = float(row["bid"]), float(row["ask"])
            if 0.0 < bid <= ask:  # a symbol that opens may show one side only: no quote
                prices.append(Price(self.time.to_utc_msc(time_msc), bid, ask))
        return prices, cursor

    def taken(self, cursors: Mapping[str, Cursor | None]) -> None:
        """Every part of the look succeeded: its ticks are not taken again."""
        self._cursors.update({symbol: cursor for symbol, cursor in cursors.items() if cursor is not None})

    @property
    def change_count(self) -> int:
        return self._change_count

    def expect_change(self) -> None:
        """The next look counts as a change, whatever it shows: what a command opened may be stopped out by then, and
        everything look as before."""
        self._seen = None

    def count_changes(self, positions: Sequence[Position]) -> None:
        """A look at all positions."""
        seen: dict[int, tuple[object, ...]] = {
            held.ticket: (held.symbol, held.side, held.volume, held.sl, held.tp) for held in positions
        }
        if seen != self._seen:
            self._change_count += 1
            self._seen = seen


def _after(rows_from: RowsFrom, cursor: Cursor) -> list[TickRow]:
    """The next rows after the cursor. A second with more ticks than one look takes is read in growing pieces."""
    count = TICKS_MAX
    while True:
        rows = list(rows_from(cursor.time_msc // 1000, count))
        same = 0
        for index, row in enumerate(rows):
            time_msc = int(row["time_msc"])
            same += time_msc == cursor.time_msc
            if time_msc > cursor.time_msc or same > cursor.taken:
                return rows[index:]
        if len(rows) < count:
            return []
        count *= 2
