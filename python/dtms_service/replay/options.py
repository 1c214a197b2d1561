"""From what a user says to a job: files, symbol, entry rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dtms_service import history, symbols
from dtms_service.bars import BarBuilder
from dtms_service.broker.paper_symbols import standard_trading
from dtms_service.config import Config
from dtms_service.errors import HistoryInvalid, invalid
from dtms_service.history import HistoryInfo, Tick
from dtms_service.replay import strategies
from dtms_service.replay.entries import DonchianBreakout, EntryRule, parse_trades
from dtms_service.replay.job import HistoryJob
from dtms_service.replay.on_the_clock import OnTheClock

ENTRY_MAGIC = 1983  # the year of the Turtles; anything but the magic of DTMS serves
Progress = Callable[[int, int], None]  # rows done, rows in all


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """``trades`` is a schedule (``entries.TRADE_SYNTAX``); empty means an entry rule with ``volume`` lots a trade: both
    sides every ``every_s`` s, or without it the Turtles' breakout.

    ``entry_bar_s`` is the length of the rule's bars, s; None means the slow timeframe. ``warm_up`` is older history
    that only the indicators and the entry rule see.
    ``spread_points`` is for files without a spread of their own. ``strategy_types`` is what trades are registered with
    (``strategies.STRATEGY_SYNTAX``).
    """

    files: Sequence[Path]
    symbol: str
    trades: Sequence[str]
    volume: float | None
    entry_bar_s: int | None
    every_s: int | None
    spread_points: int | None
    warm_up: Sequence[Path]
    strategy_types: Sequence[str]
    out: Path

    @property
    def entry_rule(self) -> str:
        """In words, for the report."""
        return f"{self._opening}; {strategies.in_words(self.strategy_types)}"

    @property
    def _opening(self) -> str:
        if self.trades:
            return "opened by schedule: " + "; ".join(self.trades)
        bars = f"{self.entry_bar_s / 3600:g} h bars" if self.entry_bar_s else "bars of the slow timeframe"
        if self.every_s:
            return (
                f"{self.volume:g} lots on both sides at every whole {self.every_s / 3600:g} h UTC, whatever the market "
                f"does; stop 2 N ({bars}), target three times the stop"
            )
        return (
            f"Turtle System 1 entry on {bars}: {self.volume:g} lots after a close beyond the 20-bar channel, either "
            "side, one trade a side; stop 2 N, target three times the stop"
        )


def job_of(options: ReplayOptions, config: Config, progress: Progress) -> HistoryJob:
    """Checks every file before anything runs. Raises HistoryInvalid, ConfigInvalid, SYMBOL_UNKNOWN or FIELD_INVALID."""
    if config.paper is None:
        raise invalid("paper", "a replay needs a paper account")
    symbol = symbols.load(options.symbol, config.symbols.override_fields(), config.symbols.suffixes)
    infos = _checked(options.files)
    entries = _entry_rule(options, config)
    return HistoryJob(
        sources=options.files,
        ticks=lambda: _ticks(options, infos, symbol.spec.point, progress),
        account=config.paper.to_broker(),
        spec=symbol.spec,
        trading=standard_trading(symbol.spec),
        entries=entries,
        strategy_types=strategies.rotation(options.strategy_types, config.universal_strategies),
        entry_magic=ENTRY_MAGIC,
        bar_s=max([config.engine.fast_s, *(info.period_s or 0 for info in infos)]),
        path_period_s=infos[0].period_s,
        out=options.out,
    )


def _checked(files: Sequence[Path]) -> list[HistoryInfo]:
    if not files:
        raise invalid("files", "at least one history file")
    infos = [history.sniff(path, lambda _done, _total: None) for path in files]
    for path, info, before in zip(files[1:], infos[1:], infos, strict=False):
        if info.first_time_msc <= before.last_time_msc:
            raise HistoryInvalid(path, 0, "", "begins before the file before it has ended; give files in order of time")
        if info.period_s != before.period_s:
            raise HistoryInvalid(path, 0, "", "has another period than the file before it")
    return infos


def _entry_rule(options: ReplayOptions, config: Config) -> EntryRule:
    if options.trades:
        return parse_trades(options.trades)
    if options.volume is None:
        raise invalid("volume", "required: lots of each trade that the entry rule opens (or give --trade)")
    timeframe_s = options.entry_bar_s or config.engine.slow_s
    if options.every_s is not None:
        return OnTheClock(timeframe_s=timeframe_s, every_s=options.every_s, volume=options.volume)
    return DonchianBreakout(timeframe_s=timeframe_s, volume=options.volume)


def seen_by(entries: EntryRule, ticks: Iterator[Tick]) -> Iterator[Tick]:
    """The same ticks, whose closed bars the entry rule has seen. It opens nothing on them."""
    if entries.timeframe_s is None:
        yield from ticks
        return
    bars = BarBuilder(entries.timeframe_s)
    for tick in ticks:
        if (bar := bars.add(tick.time_msc, tick.bid, tick.volume)) is not None:
            entries.on_bar(bar)
        yield tick


def warm_up_ticks(options: ReplayOptions, point: float) -> Iterator[Tick]:
    """The older history up to the first tick of the run. Raises HistoryInvalid."""
    if not options.warm_up:
        return
    _checked(options.warm_up)
    begins_msc = history.sniff(options.files[0], lambda _done, _total: None).first_time_msc
    for path in options.warm_up:
        for tick in history.read(
            path, point=point, spread_points=options.spread_points, progress=lambda _done, _total: None
        ):
            if tick.time_msc >= begins_msc:
                return
            yield tick


def _ticks(options: ReplayOptions, infos: list[HistoryInfo], point: float, progress: Progress) -> Iterator[Tick]:
    total = sum(path.stat().st_size for path in options.files)
    before = 0
    for path, _info in zip(options.files, infos, strict=True):
        yield from history.read(
            path,
            point=point,
            spread_points=options.spread_points,
            progress=partial(_advance, progress, before, total),
        )
        before += path.stat().st_size
    progress(total, total)


def _advance(progress: Progress, before: int, total: int, done: int, _of: int) -> None:
    progress(before + done, total)
