"""VIX as far as it is known: reported to DTMS, quoted as a symbol, or read from a file of daily values.

It is never guessed: what is too old, or not known yet at the time that is asked for, is unknown.
"""

from __future__ import annotations

import bisect
import csv
import datetime as dt
import gzip
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from dtms.v1.event_pb2 import Index
from dtms.v1.market_data_service_pb2 import Quote

HOUR_NS: Final = 3_600_000_000_000
DAY_NS: Final = 24 * HOUR_NS
EPOCH: Final = dt.date(1970, 1, 1)
COLUMNS: Final = ("date", "close")


@dataclass(frozen=True, slots=True)
class VixDays:
    """Daily closes. New York closes before midnight UTC: the close of a day is known from the next day on (UTC)."""

    known_from_ns: tuple[int, ...]
    closes: tuple[float, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads CSV with the columns `date` (YYYY-MM-DD, rising) and `close`, plain or gzip.

        Raises OSError, or ValueError that names the line at fault.
        """
        known_from_ns: list[int] = []
        closes: list[float] = []
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="ascii") as lines:
            rows = csv.DictReader(lines)
            if missing := [name for name in COLUMNS if name not in (rows.fieldnames or ())]:
                raise ValueError(f"{path}: no column {missing[0]!r}")
            for row in rows:
                try:
                    day = dt.date.fromisoformat(row["date"])
                    close = _positive(float(row["close"]))
                except (TypeError, ValueError) as error:
                    raise ValueError(f"{path}: line {rows.line_num}: {error}") from error
                next_day_ns = ((day - EPOCH).days + 1) * DAY_NS
                if known_from_ns and next_day_ns <= known_from_ns[-1]:
                    raise ValueError(f"{path}: line {rows.line_num}: {day} does not come after the day before it")
                known_from_ns.append(next_day_ns)
                closes.append(close)
        return cls(tuple(known_from_ns), tuple(closes))

    def at(self, now_ns: int, *, max_age_ns: int) -> float | None:
        """The last close that is known at that time; None when it is older than `max_age_ns`, or there is none."""
        index = bisect.bisect_right(self.known_from_ns, now_ns) - 1
        if index < 0 or now_ns - self.known_from_ns[index] > max_age_ns:
            return None
        return self.closes[index]


@dataclass(frozen=True, slots=True)
class VixSources:
    """Where VIX comes from. What speaks most directly wins: a report, then a quote, then the file."""

    index: str = "VIX"
    """Name under which it is reported (ReportIndex); a report says itself how long it holds."""
    symbol: str = ""
    """Symbol that quotes it; empty where none does."""
    quote_max_age_ns: int = HOUR_NS
    """Its session is not that of the trades: an old quote is no news of this market."""
    days: VixDays | None = None
    days_max_age_ns: int = 4 * DAY_NS
    """A Friday's close lasts over a weekend with a holiday."""


class Vix:
    """The latest known value."""

    def __init__(self, sources: VixSources) -> None:
        self._sources = sources
        self._report: Index | None = None
        self._quote: Quote | None = None

    def take_quotes(self, quotes: Iterable[Quote]) -> None:
        """Remembers the symbol's."""
        for quote in quotes:
            if quote.symbol and quote.symbol == self._sources.symbol and 0 < quote.bid <= quote.ask < math.inf:
                self._quote = quote

    def take_indices(self, indices: Iterable[Index]) -> bool:
        """Remembers the report; true when there was one."""
        reports = [index for index in indices if index.name == self._sources.index and 0 < index.value < math.inf]
        if reports:
            self._report = reports[-1]
        return bool(reports)

    def at(self, now_ns: int) -> float | None:
        """VIX as known at that time (ns UTC); None while it is not."""
        if self._report is not None and now_ns < self._report.valid_until_ns:
            return self._report.value
        if self._quote is not None and now_ns - self._quote.time_msc * 1_000_000 <= self._sources.quote_max_age_ns:
            return (self._quote.bid + self._quote.ask) / 2
        if self._sources.days is not None:
            return self._sources.days.at(now_ns, max_age_ns=self._sources.days_max_age_ns)
        return None


def _positive(value: float) -> float:
    if not 0 < value < math.inf:
        raise ValueError(f"{value} is not above 0")
    return value
