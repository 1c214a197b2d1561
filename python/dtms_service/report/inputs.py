"""What a report is made of, and how it is read from the folder of a run.

Times are ns or s UTC of the history (virtual time). Prices are quote-currency doubles, R is a multiple of initial risk.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Side = Literal["BUY", "SELL"]

PARTS = ("structure", "vwap_volume", "momentum", "ema_alignment", "delta_pressure", "candle_conviction")
_PRICES = ("open", "high", "low", "close")
_COLUMNS = ("time_s", *_PRICES, "total", *PARTS)


class ReportInputInvalid(Exception):
    """An input of the report is not what it must be. Carries the place (file and row, or ticket) and the reason."""

    def __init__(self, place: str, why: str) -> None:
        super().__init__(f"{place}: {why}")
        self.place, self.why = place, why


@dataclass(frozen=True, slots=True)
class Score:
    """Score for a BUY; a SELL sees every number negated. ``parts`` follow :data:`PARTS`."""

    total: float
    parts: tuple[float, ...]

    def mirrored(self) -> Score:
        return Score(-self.total, tuple(-part for part in self.parts))


@dataclass(frozen=True, slots=True)
class Bar:
    """One closed bar; ``time_s`` is its opening. ``score`` is as of its close, None before the service had one."""

    time_s: int
    open: float
    high: float
    low: float
    close: float
    score: Score | None


@dataclass(frozen=True, slots=True)
class TradeResult:
    """What one trade earned, with DTMS and with its original stop and target only. Profits are account currency.

    R is None where the risk is not known; the unprotected figures are None where there is no such twin of the trade.
    """

    ticket: int
    side: Side
    entry_price: float
    initial_sl: float | None
    initial_tp: float | None
    volume: float
    opened_ns: int
    closed_ns: int
    r: float | None
    profit: float
    unprotected_r: float | None
    unprotected_profit: float | None
    open_at_end: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """A trade whose R is known both ways."""

    result: TradeResult
    r: float
    original_r: float

    @property
    def gain(self) -> float:
        """R that protection brought, or cost."""
        return self.r - self.original_r


def compare(results: Iterable[TradeResult]) -> list[Comparison]:
    """The trades whose R is known both ways, in the order given: only they can be added up and held side by side."""
    return [
        Comparison(result, result.r, result.unprotected_r)
        for result in results
        if result.r is not None and result.unprotected_r is not None
    ]


@dataclass(frozen=True, slots=True)
class Run:
    """About the run as a whole. The two latencies are wall clock, everything else repeats with the same history."""

    symbol: str
    source: str  # the history, in words for people
    entry_rule: str  # how trades were opened, in words for people
    bars: int
    journal_sha256: str
    tick_to_decision_p50_us: float
    tick_to_decision_p99_us: float


@dataclass(frozen=True, slots=True)
class BrokerWrite:
    """A request that the broker accepted and that changed a position: its levels, its volume, or that it exists.

    The entry's opening and the broker's own triggers (stop, target, stop-out) are none. ``intent_id`` is that of
    the command behind the request, None where there is none.
    """

    time_ns: int
    position: int
    intent_id: int | None


def read_bars(path: Path) -> list[Bar]:
    """``bars.csv``: time_s, OHLC, total and the six parts; the score columns are all empty before there is a score."""
    bars: list[Bar] = []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise ReportInputInvalid(str(path), f"columns missing: {', '.join(missing)}")
        for row in reader:
            place = f"{path}:{reader.line_num}"
            bar = _bar(place, row)
            if bars and bar.time_s <= bars[-1].time_s:
                raise ReportInputInvalid(place, f"time_s {bar.time_s} does not follow {bars[-1].time_s}")
            bars.append(bar)
    return bars


def _bar(place: str, row: Mapping[str, str]) -> Bar:
    open_, high, low, close = (_number(place, name, row[name]) for name in _PRICES)
    score = None
    if any(row[name] for name in ("total", *PARTS)):
        total, *parts = (_number(place, name, row[name]) for name in ("total", *PARTS))
        score = Score(total, tuple(parts))
    return Bar(int(_number(place, "time_s", row["time_s"])), open_, high, low, close, score)


def read_results(path: Path) -> list[TradeResult]:
    """``results.json``: ``{"trades": [...]}`` with the fields of :class:`TradeResult`; other keys are left alone."""
    document = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(document, dict) or not isinstance(document.get("trades"), list):
        raise ReportInputInvalid(str(path), 'no list "trades"')
    return [_result(f"{path}: trades[{index}]", row) for index, row in enumerate(document["trades"])]


def _result(place: str, row: object) -> TradeResult:
    if not isinstance(row, dict):
        raise ReportInputInvalid(place, "not an object")

    def number(name: str) -> float:
        return _number(place, name, row.get(name))

    def maybe(name: str) -> float | None:
        return None if row.get(name) is None else number(name)

    return TradeResult(
        ticket=int(number("ticket")),
        side=_side(place, row.get("side")),
        entry_price=number("entry_price"),
        initial_sl=maybe("initial_sl"),
        initial_tp=maybe("initial_tp"),
        volume=number("volume"),
        opened_ns=_whole(place, "opened_ns", row.get("opened_ns")),
        closed_ns=_whole(place, "closed_ns", row.get("closed_ns")),
        r=maybe("r"),
        profit=number("profit"),
        unprotected_r=maybe("unprotected_r"),
        unprotected_profit=maybe("unprotected_profit"),
        open_at_end=bool(row.get("open_at_end")),
    )


def _side(place: str, value: object) -> Side:
    if value == "BUY":
        return "BUY"
    if value == "SELL":
        return "SELL"
    raise ReportInputInvalid(place, f"side is {value!r}, not BUY or SELL")


def _whole(place: str, name: str, value: object) -> int:
    # Nanoseconds since 1970 do not fit a double: they never take the way through float.
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ReportInputInvalid(place, f"{name} is {value!r}, not a whole number")


def _number(place: str, name: str, value: object) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]  # whatever the file holds; the handler names it
    except (TypeError, ValueError):
        raise ReportInputInvalid(place, f"{name} is {value!r}, not a number") from None
    if not math.isfinite(number):
        raise ReportInputInvalid(place, f"{name} is {value!r}, not finite")
    return number
