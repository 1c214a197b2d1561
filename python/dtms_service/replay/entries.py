"""When a trade is opened: pure rules, as an expert advisor in the terminal would hold them. They know no broker.

Whatever touches money (volume, stop, target) is said by the caller; the rules hold no defaults for it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Protocol

from dtms_service.bars import ClosedBar
from dtms_service.broker.door import Side
from dtms_service.errors import DtmsError, FieldViolation, invalid_fields
from dtms_service.history import Tick
from dtms_service.replay.strategies import NONE
from dtms_service.replay.true_range import AverageRange


class LevelKind(Enum):
    PRICE = "price"
    DISTANCE = "distance"  # from the opening price, always positive


@dataclass(frozen=True, slots=True)
class Level:
    """A stop or a target, in quote currency."""

    kind: LevelKind
    value: float

    def price(self, side: Side, opening: float, *, favourable: bool) -> float:
        """The level as a price; ``favourable`` tells a target from a stop."""
        if self.kind is LevelKind.PRICE:
            return self.value
        return opening + self.value if (side is Side.BUY) is favourable else opening - self.value


@dataclass(frozen=True, slots=True)
class Entry:
    """Open ``volume`` lots at the market now. ``sl`` and ``tp`` may be None: no such level.

    ``strategy_type`` is what the trade is registered with; None leaves it to the run.
    """

    side: Side
    volume: float
    sl: Level | None
    tp: Level | None
    strategy_type: str | None = None


class EntryRule(Protocol):
    """Sees every closed bar of its timeframe and every tick, in order of time."""

    @property
    def timeframe_s(self) -> int | None:
        """Length of the bars it wants, s; None if it wants none."""

    def on_bar(self, bar: ClosedBar) -> None: ...

    def on_tick(self, tick: Tick, open_sides: Collection[Side]) -> list[Entry]:
        """What to open at this tick. ``open_sides`` are the sides of this rule's trades that are open now."""

    def missed(self) -> list[str]:
        """What it was told to open and had no tick for, in words, once the history has ended."""


def check_parameters(amounts: Mapping[str, float], counts: Mapping[str, int]) -> None:
    """Raises FIELD_INVALID, naming every amount that is not finite and above 0 and every count below 1."""
    wrong = [
        FieldViolation(name, f"must be a finite number > 0, is {value}")
        for name, value in amounts.items()
        if not (math.isfinite(value) and value > 0)
    ]
    wrong += [FieldViolation(name, f"must be at least 1, is {n}") for name, n in counts.items() if n < 1]
    if wrong:
        raise invalid_fields(wrong)


class DonchianBreakout:
    """The entry of Turtle System 1 (C. Faith, "The Original Turtle Trading Rules", 2003), on closes of bars.

    Buy when a bar closes above the high of the ``period`` bars before it, sell when it closes below their low; the
    stop stands ``stop_atr`` x N away, N being the 20-bar Wilder average of the true range. The Turtles bought inside of
    the day, at the channel; a history of bars does not say what was traded there, so the close decides and the next
    tick is bought. A breakout follows a close inside of the channel, or beyond its other end; at most one trade a side
    is open. Left out: the filter that skips a breakout after a winning one, adding to winners, and the exit at the
    opposite 10-bar extreme, whose place a target of ``target_r`` x the stop distance takes.
    """

    def __init__(
        self, *, timeframe_s: int, volume: float, period: int = 20, stop_atr: float = 2.0, target_r: float = 3.0
    ) -> None:
        check_parameters(
            {"volume": volume, "stop_atr": stop_atr, "target_r": target_r},
            {"timeframe_s": timeframe_s, "period": period},
        )
        self._timeframe_s = timeframe_s
        self._volume, self._stop_atr, self._target_r = volume, stop_atr, target_r
        self._bars: deque[ClosedBar] = deque(maxlen=period)
        self._range = AverageRange()
        self._beyond: Side | None = None  # where the last bar closed, seen from the channel before it
        self._signal: Side | None = None

    @property
    def timeframe_s(self) -> int:
        return self._timeframe_s

    @property
    def n(self) -> float | None:
        """N of the last closed bar as a price distance; None until 20 bars have closed."""
        return self._range.n

    def on_bar(self, bar: ClosedBar) -> None:
        self._signal = None
        if self._range.n is not None and len(self._bars) == self._bars.maxlen:
            beyond = self._side_of(bar.close)
            if beyond is not None and beyond is not self._beyond:
                self._signal = beyond
            self._beyond = beyond
        self._range.add(bar)
        self._bars.append(bar)

    def on_tick(self, tick: Tick, open_sides: Collection[Side]) -> list[Entry]:  # noqa: ARG002  # the close decided
        side, self._signal = self._signal, None
        if side is None or not self._range.n or side in open_sides:
            return []
        distance = self._stop_atr * self._range.n
        return [
            Entry(
                side=side,
                volume=self._volume,
                sl=Level(LevelKind.DISTANCE, distance),
                tp=Level(LevelKind.DISTANCE, self._target_r * distance),
            )
        ]

    def _side_of(self, close: float) -> Side | None:
        if close > max(bar.high for bar in self._bars):
            return Side.BUY
        return Side.SELL if close < min(bar.low for bar in self._bars) else None

    def missed(self) -> list[str]:
        return []


@dataclass(frozen=True, slots=True)
class ScheduledEntry:
    """One trade opened at the first tick at or after ``time_msc`` (UTC). ``text`` is how its author wrote it."""

    time_msc: int
    entry: Entry
    text: str


class Scheduled:
    """Trades at given times, in order of time."""

    def __init__(self, entries: Iterable[ScheduledEntry]) -> None:
        self._pending = deque(sorted(entries, key=lambda scheduled: scheduled.time_msc))
        self._next_msc = self._pending[0].time_msc if self._pending else None

    @property
    def timeframe_s(self) -> None:
        return None

    def on_bar(self, bar: ClosedBar) -> None:
        raise AssertionError(f"a schedule asks for no bars, was given {bar}")

    def on_tick(self, tick: Tick, open_sides: Collection[Side]) -> list[Entry]:  # noqa: ARG002  # of the protocol
        if self._next_msc is None or tick.time_msc < self._next_msc:
            return []
        due = []
        while self._pending and self._pending[0].time_msc <= tick.time_msc:
            due.append(self._pending.popleft().entry)
        self._next_msc = self._pending[0].time_msc if self._pending else None
        return due

    def missed(self) -> list[str]:
        return [f"{scheduled.text}: the history ends before" for scheduled in self._pending]


TRADE_SYNTAX = "SIDE@TIME,VOLUME[,sl=PRICE|,sl_distance=D][,tp=PRICE|,tp_distance=D][,strategy=TYPE]"
_LEVELS = {
    "sl": ("sl", LevelKind.PRICE),
    "sl_distance": ("sl", LevelKind.DISTANCE),
    "tp": ("tp", LevelKind.PRICE),
    "tp_distance": ("tp", LevelKind.DISTANCE),
}


def parse_trade(text: str) -> ScheduledEntry:
    """Read ``BUY@2014-05-02T12:25:00,0.10,sl=1283.5,tp=1310`` (:data:`TRADE_SYNTAX`; times are UTC).

    Raises FIELD_INVALID naming every part that is wrong: ``trade.side``, ``trade.time``, ``trade.volume``,
    ``trade.sl``, ``trade.tp``, ``trade.strategy``, or ``trade`` for a part that is none of them.
    """
    head, *parts = text.split(",")
    side_text, at, time_text = head.partition("@")
    wrong: list[FieldViolation] = []
    side = {"BUY": Side.BUY, "SELL": Side.SELL}.get(side_text.strip().upper())
    if side is None or not at:
        wrong.append(FieldViolation("trade.side", f"must be BUY@ or SELL@, is {side_text!r}; write {TRADE_SYNTAX}"))
    time_msc = _time(time_text.strip(), wrong) if at else 0
    volume = _positive("trade.volume", parts[0].strip() if parts else "", wrong)
    strategy, others = _strategy(parts[1:], wrong)
    levels = _levels(others, wrong)
    if wrong or side is None:
        raise invalid_fields(wrong)
    entry = Entry(side=side, volume=volume, sl=levels.get("sl"), tp=levels.get("tp"), strategy_type=strategy)
    return ScheduledEntry(time_msc=time_msc, entry=entry, text=text)


def parse_trades(texts: Iterable[str]) -> Scheduled:
    """A schedule of all the trades; FIELD_INVALID names every wrong part of every one, as ``trades[1].volume``."""
    entries: list[ScheduledEntry] = []
    wrong: list[FieldViolation] = []
    for index, text in enumerate(texts):
        try:
            entries.append(parse_trade(text))
        except DtmsError as error:
            wrong += [FieldViolation(v.field.replace("trade", f"trades[{index}]", 1), v.why) for v in error.violations]
    if wrong:
        raise invalid_fields(wrong)
    return Scheduled(entries)


def _strategy(parts: Iterable[str], wrong: list[FieldViolation]) -> tuple[str | None, list[str]]:
    """The strategy type, and the parts that say something else. ``none`` is a trade of DTMS, silence is None."""
    others, named = [], []
    for part in parts:
        key, _, value = part.partition("=")
        if key.strip().lower() == "strategy":
            named.append(value.strip())
        else:
            others.append(part)
    if len(named) > 1:
        wrong.append(FieldViolation("trade.strategy", "given twice"))
    if named and not named[0]:
        wrong.append(FieldViolation("trade.strategy", f"must be a strategy type or {NONE}"))
    return ("" if named[0] == NONE else named[0]) if named else None, others


def _levels(parts: Iterable[str], wrong: list[FieldViolation]) -> dict[str, Level]:
    levels: dict[str, Level] = {}
    for part in parts:
        key, _, value = part.partition("=")
        known = _LEVELS.get(key.strip().lower())
        if known is None:
            wrong.append(FieldViolation("trade", f"{part.strip()!r} is none of {', '.join(_LEVELS)}"))
            continue
        name, kind = known
        if name in levels:
            wrong.append(FieldViolation(f"trade.{name}", "given twice"))
        levels[name] = Level(kind, _positive(f"trade.{name}", value.strip(), wrong))
    return levels


def _positive(field: str, text: str, wrong: list[FieldViolation]) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        wrong.append(FieldViolation(field, f"must be a number > 0, is {text!r}" if text else "is required"))
    return number


def _time(text: str, wrong: list[FieldViolation]) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        wrong.append(FieldViolation("trade.time", f"must be like 2014-05-02T12:25:00 (UTC), is {text!r}"))
        return 0
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return round(moment.timestamp() * 1000)
