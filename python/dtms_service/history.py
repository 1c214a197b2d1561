"""Reads price histories as ticks: tick files, bar files and MetaTrader 5's own bar export, plain or gzip.

Nothing is repaired. A row that breaks a rule stops the reading and is named by line and column, because a history that
was mended silently proves nothing. Reading streams: memory does not grow with the file.

A bar becomes four ticks at 0, 1/4, 1/2 and 3/4 of its period: open, extreme, other extreme, close, where a bar that
closes at or above its open makes its low first and any other its high. (MetaTrader's tester orders extremes the same
way when it has nothing better.) The bar's volume is split over the four so that it sums exactly.
"""

from __future__ import annotations

import gzip
import io
import itertools
import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, NoReturn

from dtms_service.errors import HistoryInvalid

BytesRead = Callable[[int, int], None]
"""Progress: called as (bytes read of the file, its size)."""

PERIOD_SAMPLE: Final = 512
"""Bars held back to find the period as the commonest distance: enough to see through weekends and missing minutes."""
PERIODS_S: Final = frozenset(
    [60 * minutes for minutes in (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30)]
    + [3_600 * hours for hours in (1, 2, 3, 4, 6, 8, 12)]
    + [86_400, 604_800]
)
"""MetaTrader 5's timeframes up to a week; a month has no fixed length."""
MAX_LINE_CHARS: Final = 4_096
"""A longer line is no price row: reading it whole would cost memory without bound."""
_PROGRESS_ROWS: Final = 4_096
_GZIP_MAGIC: Final = b"\x1f\x8b"
_EXTREMES: Final = ("open", "high", "low", "close")
_VOLUMES: Final = ("tick_volume", "volume", "real_volume", "volume_usd")
_BAR_COLUMNS: Final = frozenset({"time", *_EXTREMES, "spread", *_VOLUMES, *(f"ask_{name}" for name in _EXTREMES)})
_MT_NAMES: Final = {
    "<DATE>": "date",
    "<TIME>": "clock",
    "<OPEN>": "open",
    "<HIGH>": "high",
    "<LOW>": "low",
    "<CLOSE>": "close",
    "<TICKVOL>": "tick_volume",
    "<VOL>": "real_volume",
    "<SPREAD>": "spread",
}


class Tick(NamedTuple):
    """One price. ``time_msc`` is milliseconds UTC; ``volume`` counts ticks, or is what the bar has for it."""

    time_msc: int
    bid: float
    ask: float
    volume: float


class Kind(Enum):
    TICKS = "ticks"
    BARS = "bars"
    MT_BARS = "mt_bars"


@dataclass(frozen=True, slots=True)
class HistoryInfo:
    """What a file holds. ``period_s`` is None for ticks; times are UTC as far as the file's own clock is."""

    kind: Kind
    columns: tuple[str, ...]
    compressed: bool
    period_s: int | None
    has_spread: bool
    rows: int
    first_time_msc: int
    last_time_msc: int


class _Bar(NamedTuple):
    line: int
    time_s: int
    bid: tuple[float, float, float, float]  # open, high, low, close
    ask: tuple[float, float, float, float] | None
    spread_points: int | None
    volume: float | None


class _Table:
    """An open file behind its header: rows as lists of texts, each with its line number."""

    def __init__(self, path: Path, raw: BinaryIO, text: io.TextIOWrapper, progress: BytesRead) -> None:
        self.path = path
        self._raw = raw
        self._size = path.stat().st_size
        self._progress = progress
        self.compressed = text.buffer is not raw
        self._lines = self._read(text)
        header = next(self._lines, (1, ""))[1]
        self.separator = "\t" if "\t" in header else ","
        written = [name.strip() for name in header.split(self.separator)]
        self.columns = tuple(_MT_NAMES.get(name, name) if name.startswith("<") else name.lower() for name in written)
        self.kind = self._kind(header)
        self.place = {name: index for index, name in enumerate(self.columns)}

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        width = len(self.columns)
        count = 0
        for number, line in self._lines:
            row = line.split(self.separator)
            if len(row) != width:
                self.refuse(number, "", f"{len(row)} columns where the header names {width}")
            yield number, row
            count += 1
        if not count:
            self.refuse(0, "", "holds no rows")

    def refuse(self, line: int, column: str, why: str) -> NoReturn:
        raise HistoryInvalid(self.path, line, column, why)

    def _read(self, text: io.TextIOWrapper) -> Iterator[tuple[int, str]]:
        number = 0
        try:
            while line := text.readline(MAX_LINE_CHARS):
                number += 1
                if number % _PROGRESS_ROWS == 0:
                    self._progress(self._raw.tell(), self._size)
                if len(line) == MAX_LINE_CHARS:
                    self.refuse(number, "", f"the line is longer than {MAX_LINE_CHARS} characters")
                if stripped := line.rstrip("\n"):
                    yield number, stripped
        except EOFError as error:
            raise HistoryInvalid(self.path, number, "", "the gzip file is cut off after this line") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise HistoryInvalid(self.path, number, "", f"the gzip file is damaged after this line: {error}") from error
        except UnicodeDecodeError as error:
            raise HistoryInvalid(self.path, number + 1, "", "is not text") from error
        self._progress(self._size, self._size)

    def _kind(self, header: str) -> Kind:
        if not header:
            self.refuse(0, "", "the file is empty")
        if repeated := [name for name, times in Counter(self.columns).items() if times > 1]:
            self.refuse(1, repeated[0], "is named twice")
        names = set(self.columns)
        if "date" in names and header.startswith("<"):
            self._require(names, {"date", *_EXTREMES}, {*_MT_NAMES.values()})
            return Kind.MT_BARS
        if "time_msc" in names:
            self._require(names, {"time_msc", "bid", "ask"}, {"time_msc", "bid", "ask"})
            return Kind.TICKS
        if "time" in names:
            asks = {f"ask_{name}" for name in _EXTREMES}
            self._require(names, {"time", *_EXTREMES} | (asks if names & asks else set()), _BAR_COLUMNS)
            return Kind.BARS
        raise HistoryInvalid(
            self.path,
            1,
            "",
            "unknown header: expected time_msc,bid,ask or time,open,high,low,close or <DATE> <OPEN> ...",
        )

    def _require(self, names: set[str], needed: set[str], known: set[str] | frozenset[str]) -> None:
        for column in sorted(needed - names):
            self.refuse(1, column, "this column is missing")
        for column in sorted(names - known):
            self.refuse(1, column, "unknown column")


def sniff(path: Path, progress: BytesRead) -> HistoryInfo:
    """Read the whole file, check every row, and say what it holds. HistoryInvalid names the first bad row."""
    with _opened(path, progress) as table:
        if table.kind is Kind.TICKS:
            times = ((tick.time_msc, True) for tick in _ticks(table))
            period_s = None
        else:
            period_s, bars = _with_period(table)
            times = ((bar.time_s * 1_000, bar.ask is not None or bar.spread_points is not None) for bar in bars)
        first, has_spread = next(times)
        rows, last = 1, first
        for rows, (last, _) in enumerate(times, 2):  # noqa: B007  both are wanted after the loop
            pass
        return HistoryInfo(table.kind, table.columns, table.compressed, period_s, has_spread, rows, first, last)


def read(path: Path, *, point: float, spread_points: int | None, progress: BytesRead) -> Iterator[Tick]:
    """The file's ticks, oldest first; times of MetaTrader exports (broker time) are taken as UTC.

    ``point`` is the symbol's smallest price step, in which files count spreads. ``spread_points`` stands in where the
    file has no spread of its own and is required then. HistoryInvalid names the first row that breaks a rule.
    """
    with _opened(path, progress) as table:
        if table.kind is Kind.TICKS:
            yield from _ticks(table)
            return
        decimals = _decimals(point)
        period_s, bars = _with_period(table)
        for bar in bars:
            yield from _expand(bar, period_s, _asks(table, bar, point, decimals, spread_points))


@contextmanager
def _opened(path: Path, progress: BytesRead) -> Iterator[_Table]:
    with path.open("rb") as raw:
        magic = raw.read(2)
        raw.seek(0)
        encoding = "utf-16" if magic in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        unpacked = gzip.GzipFile(fileobj=raw) if magic == _GZIP_MAGIC else raw
        with unpacked, io.TextIOWrapper(unpacked, encoding=encoding) as text:
            yield _Table(path, raw, text, progress)


# -- ticks --------------------------------------------------------------------------------------------------------


def _ticks(table: _Table) -> Iterator[Tick]:
    at_time, at_bid, at_ask = (table.place[name] for name in ("time_msc", "bid", "ask"))
    last = 0
    for line, row in table.rows():
        time_msc = _whole(table, line, "time_msc", row[at_time])
        bid, ask = _price(table, line, "bid", row[at_bid]), _price(table, line, "ask", row[at_ask])
        if time_msc < last:  # equal times are real: feeds send several prices, also equal ones, within a millisecond
            table.refuse(line, "time_msc", _disorder(time_msc, last))
        if ask < bid:
            table.refuse(line, "ask", f"{ask} lies below the bid, {bid}")
        last = time_msc
        yield Tick(time_msc, bid, ask, 1.0)


# -- bars ---------------------------------------------------------------------------------------------------------


def _with_period(table: _Table) -> tuple[int, Iterator[_Bar]]:
    bars = _bars(table)
    sample = list(itertools.islice(bars, PERIOD_SAMPLE))
    distances = Counter(later.time_s - bar.time_s for bar, later in itertools.pairwise(sample))
    period_s = distances.most_common(1)[0][0] if distances else 0
    if period_s not in PERIODS_S:
        found = f"the commonest distance of bars is {period_s} s" if distances else "there is only one bar"
        table.refuse(0, "time", f"the period cannot be told: {found}")
    return period_s, _spaced(table, period_s, itertools.chain(sample, bars))


def _spaced(table: _Table, period_s: int, bars: Iterator[_Bar]) -> Iterator[_Bar]:
    free_s = 0
    for bar in bars:
        if bar.time_s < free_s:
            table.refuse(bar.line, "time", f"this bar overlaps the one before: the period is {period_s} s")
        free_s = bar.time_s + period_s
        yield bar


def _bars(table: _Table) -> Iterator[_Bar]:
    place = table.place
    bid_at = [place[name] for name in _EXTREMES]
    ask_at = [place[f"ask_{name}"] for name in _EXTREMES] if "ask_open" in place else None
    volume_name = next((name for name in _VOLUMES if name in place), None)
    time_of = _mt_time if table.kind is Kind.MT_BARS else _unix_time
    last = -1
    for line, row in table.rows():
        time_s = time_of(table, line, row)
        if time_s <= last:
            table.refuse(line, "time", _disorder(time_s, last))
        last = time_s
        bid = _extremes(table, line, "", [row[at] for at in bid_at])
        ask = None
        if ask_at is not None:
            ask = _extremes(table, line, "ask_", [row[at] for at in ask_at])
            for name, bid_price, ask_price in zip(_EXTREMES, bid, ask, strict=True):
                if ask_price < bid_price:
                    table.refuse(line, f"ask_{name}", f"{ask_price} lies below the bid, {bid_price}")
        spread = _whole(table, line, "spread", row[place["spread"]]) if "spread" in place else None
        volume = _amount(table, line, volume_name, row[place[volume_name]]) if volume_name is not None else None
        yield _Bar(line, time_s, bid, ask, spread, volume)


def _unix_time(table: _Table, line: int, row: list[str]) -> int:
    return _whole(table, line, "time", row[table.place["time"]])


def _mt_time(table: _Table, line: int, row: list[str]) -> int:
    clock = row[table.place["clock"]] if "clock" in table.place else "00:00:00"
    written = f"{row[table.place['date']]} {clock}"
    try:
        return int(datetime.strptime(f"{written} +0000", "%Y.%m.%d %H:%M:%S %z").timestamp())
    except ValueError as error:
        raise HistoryInvalid(table.path, line, "<DATE>", f"{written!r} is not YYYY.MM.DD HH:MM:SS") from error


def _extremes(table: _Table, line: int, prefix: str, row: list[str]) -> tuple[float, float, float, float]:
    first, high, low, last = (
        _price(table, line, prefix + name, text) for name, text in zip(_EXTREMES, row, strict=True)
    )
    if high < low:
        table.refuse(line, f"{prefix}high", f"{high} lies below the low, {low}")
    for name, price in (("open", first), ("close", last)):
        if not low <= price <= high:
            table.refuse(line, f"{prefix}{name}", f"{price} lies outside of low and high, {low} and {high}")
    return first, high, low, last


def _asks(
    table: _Table, bar: _Bar, point: float, decimals: int, spread_points: int | None
) -> tuple[float, float, float, float]:
    if bar.ask is not None:
        return bar.ask
    spread = bar.spread_points if bar.spread_points is not None else spread_points
    if spread is None:
        table.refuse(1, "spread", "the file has no spread, and none was given (spread_points)")
    width = spread * point
    first, high, low, last = (round(price + width, decimals) for price in bar.bid)
    return first, high, low, last


def _expand(bar: _Bar, period_s: int, ask: tuple[float, float, float, float]) -> Iterator[Tick]:
    first, high, low, last = zip(bar.bid, ask, strict=True)
    path = (first, low, high, last) if bar.bid[3] >= bar.bid[0] else (first, high, low, last)
    start, quarter = bar.time_s * 1_000, period_s * 250
    for step, ((bid, offer), volume) in enumerate(zip(path, _quarters(bar.volume), strict=True)):
        yield Tick(start + step * quarter, bid, offer, volume)


def _quarters(volume: float | None) -> tuple[float, float, float, float]:
    """Four parts that sum exactly: whole numbers for whole volumes (ticks do not come in halves)."""
    if volume is None:
        return 1.0, 1.0, 1.0, 1.0
    if not volume.is_integer():
        part = volume / 4  # exact in binary
        return part, part, part, part
    whole, rest = divmod(int(volume), 4)
    first, second, third, fourth = (float(whole + (step < rest)) for step in range(4))
    return first, second, third, fourth


# -- fields -------------------------------------------------------------------------------------------------------


def _price(table: _Table, line: int, column: str, text: str) -> float:
    price = _number(table, line, column, text)
    if not 0 < price < math.inf:
        table.refuse(line, column, f"{text!r} is not a positive price")
    return price


def _amount(table: _Table, line: int, column: str, text: str) -> float:
    amount = _number(table, line, column, text)
    if not 0 <= amount < math.inf:
        table.refuse(line, column, f"{text!r} is not a volume")
    return amount


def _number(table: _Table, line: int, column: str, text: str) -> float:
    if "_" in text:  # Python would read 1_000
        table.refuse(line, column, f"{text!r} is not a number")
    try:
        return float(text)
    except ValueError as error:
        raise HistoryInvalid(table.path, line, column, f"{text!r} is not a number") from error


def _whole(table: _Table, line: int, column: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        table.refuse(line, column, f"{text!r} is not a whole number of at least 0")
    return int(text)


def _disorder(time: int, last: int) -> str:
    return f"{time} repeats the row before" if time == last else f"{time} comes after {last}: rows are not sorted"


def _decimals(point: float) -> int:
    if not 0 < point < math.inf:
        raise ValueError(f"point {point} is not a price step")
    return max(0, -int(Decimal(repr(point)).normalize().as_tuple().exponent))
