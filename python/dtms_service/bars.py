"""Bars of bid prices, built from ticks, and the last closed ones of every symbol."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from typing import Final, NamedTuple

TIMEFRAMES_S: Final = (60, 300, 900, 3_600, 14_400)
"""Lengths of the bars that are kept, s. Each one is made of bars of the first."""
SHORTEST_S: Final = TIMEFRAMES_S[0]
KEPT: Final = 500
"""Bars kept of each symbol and length: any indicator of a manager is warm long before; 190 KB each."""


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


class _Longer:
    """Bars of one length, put together from closed bars of a shorter one that divides it.

    The first one counts only if it was seen from its beginning.
    """

    __slots__ = ("_bar", "_ends_s", "_period_s", "_seen", "_whole")

    def __init__(self, period_s: int) -> None:
        self._period_s = period_s
        self._bar: ClosedBar | None = None
        self._ends_s = 0
        self._seen = self._whole = False

    def add(self, bar: ClosedBar) -> None:
        known = self._bar
        if known is None:
            start_s = bar.time_s - bar.time_s % self._period_s
            self._bar = bar._replace(time_s=start_s)
            self._ends_s = start_s + self._period_s
            self._whole = self._seen or bar.time_s == start_s
            self._seen = True
        else:
            self._bar = ClosedBar(
                known.time_s,
                known.open,
                max(known.high, bar.high),
                min(known.low, bar.low),
                bar.close,
                known.volume + bar.volume,
            )

    def close(self, now_s: int) -> ClosedBar | None:
        """The bar, if it has ended by now."""
        if self._bar is None or now_s < self._ends_s:
            return None
        closed, self._bar = self._bar, None
        return closed if self._whole else None


class Closed(NamedTuple):
    """A bar that has closed, with what it belongs to. ``number`` rises by one with each, over all of them."""

    number: int
    account_id: str
    symbol: str
    timeframe_s: int
    bar: ClosedBar

    @property
    def ends_s(self) -> int:
        return self.bar.time_s + self.timeframe_s


class _Instrument:
    """``began``: the first bar of the shortest length has closed. Its beginning was not seen, so it was no bar."""

    __slots__ = ("began", "kept", "longer", "shortest")

    def __init__(self, keep: int | None) -> None:
        self.began = False
        self.shortest = BarBuilder(SHORTEST_S)
        self.longer = {period_s: _Longer(period_s) for period_s in TIMEFRAMES_S[1:]}
        self.kept: dict[int, deque[Closed]] = {period_s: deque(maxlen=keep) for period_s in TIMEFRAMES_S}


class ClosedBars:
    """The last closed bars of every symbol for whoever follows them: built from ticks, or fed as history.

    One counter for all, one wake-up for all readers; a reader keeps the count that it has seen. Not journaled.
    ``keep`` is how many of each symbol and length; None keeps all, so that whoever begins anew reads what others read.
    """

    def __init__(self, keep: int | None = KEPT) -> None:
        self._keep_most = keep
        self.on_closed: Callable[[list[Closed]], None] = lambda _bars: None
        """Told of the bars that one tick closed or one feed brought."""
        self._instruments: dict[tuple[str, str], _Instrument] = {}
        self._count = 0
        self._changed = asyncio.Event()

    @property
    def count(self) -> int:
        """Bars closed so far."""
        return self._count

    def tick(self, account_id: str, symbol: str, time_msc: int, bid: float, volume: float) -> None:
        """Takes a price, in order of time. A volume of 0 counts as 1."""
        of = self._instruments.get((account_id, symbol))
        if of is None:
            of = self._instruments[account_id, symbol] = _Instrument(self._keep_most)
        minute = of.shortest.add(time_msc, bid, volume)
        if minute is None:
            return
        if not of.began:
            of.began = True
            return
        before = self._count
        self._minute(of, account_id, symbol, minute, time_msc // 1000)
        self._tell(of, before)

    def feed(self, account_id: str, symbol: str, timeframe_s: int, bar: ClosedBar, *, tell: bool = True) -> bool:
        """Takes a closed bar from outside, to fill up what was before; False for one that is late, known or unknown."""
        if timeframe_s not in TIMEFRAMES_S:
            return False
        of = self._instruments.setdefault((account_id, symbol), _Instrument(self._keep_most))
        kept = of.kept[timeframe_s]
        if kept and bar.time_s <= kept[-1].bar.time_s:
            return False
        before = self._count
        if timeframe_s == SHORTEST_S:
            self._minute(of, account_id, symbol, bar, bar.time_s + SHORTEST_S)
        else:
            self._keep(of, account_id, symbol, timeframe_s, bar)
        if tell:
            self._tell(of, before)
        return True

    def since(self, count: int, wanted: Wanted) -> list[Closed]:
        """What closed after ``count`` and is still kept, in order of the end."""
        found = [
            closed
            for (account_id, symbol), of in self._instruments.items()
            if wanted.takes(account_id, symbol)
            for period_s in wanted.timeframes_s
            for closed in _after(of.kept[period_s], count)
        ]
        return sorted(found, key=lambda closed: (closed.ends_s, closed.account_id, closed.symbol, closed.timeframe_s))

    async def watch(self, wanted: Wanted, history: int) -> AsyncIterator[list[Closed]]:
        """First ``history`` bars of each symbol and length, then each one as it closes."""
        count = self._count
        first = self.since(0, wanted)
        if recent := _last_of_each(first, history):
            yield recent
        while True:
            changed = self._changed
            closed, count = self.since(count, wanted), self._count
            if closed:
                yield closed
            elif changed.is_set():
                self._changed = asyncio.Event()
            else:
                await changed.wait()

    def _tell(self, of: _Instrument, before: int) -> None:
        if self._count > before:
            self.on_closed([kept[-1] for kept in of.kept.values() if kept and kept[-1].number > before])

    def _minute(self, of: _Instrument, account_id: str, symbol: str, minute: ClosedBar, now_s: int) -> None:
        """Keeps a bar of the shortest length, and the longer ones that end with it."""
        self._keep(of, account_id, symbol, SHORTEST_S, minute)
        for period_s, longer in of.longer.items():
            if (late := longer.close(minute.time_s)) is not None:
                self._keep(of, account_id, symbol, period_s, late)
            longer.add(minute)
            if (closed := longer.close(now_s)) is not None:
                self._keep(of, account_id, symbol, period_s, closed)

    def _keep(self, of: _Instrument, account_id: str, symbol: str, period_s: int, bar: ClosedBar) -> None:
        kept = of.kept[period_s]
        if kept and bar.time_s <= kept[-1].bar.time_s:
            return  # fed as history before its last tick came
        self._count += 1
        kept.append(Closed(self._count, account_id, symbol, period_s, bar))
        self._changed.set()


class Wanted(NamedTuple):
    """Which bars: an empty account or no symbols mean all."""

    account_id: str
    symbols: frozenset[str]
    timeframes_s: tuple[int, ...]

    def takes(self, account_id: str, symbol: str) -> bool:
        return (not self.account_id or account_id == self.account_id) and (not self.symbols or symbol in self.symbols)


def _after(kept: deque[Closed], count: int) -> list[Closed]:
    """Those after ``count``, looked for from the end: mostly there are none."""
    found = []
    for closed in reversed(kept):
        if closed.number <= count:
            break
        found.append(closed)
    return found


def _last_of_each(bars: list[Closed], most: int) -> list[Closed]:
    left: Counter[tuple[str, str, int]] = Counter()
    recent = []
    for closed in reversed(bars):
        key = (closed.account_id, closed.symbol, closed.timeframe_s)
        left[key] += 1
        if left[key] <= most:
            recent.append(closed)
    return recent[::-1]
