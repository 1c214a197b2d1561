"""One run from end to end: a history, an account, an entry rule; brokers and files around the driver."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dtms_service.broker.command_log import CommandLog, LoggedDoor
from dtms_service.broker.door import SymbolSpec
from dtms_service.broker.paper import PaperBroker
from dtms_service.broker.paper_config import PaperConfig, SymbolTrading
from dtms_service.broker.paper_door import PaperDoor
from dtms_service.broker.recorded import RecordedBroker, RecordedDoor
from dtms_service.errors import invalid
from dtms_service.history import Tick
from dtms_service.replay.artefacts import RunFolder
from dtms_service.replay.driver import HistoryDriver, Link, RunFigures, RunPlan, ScoreReading
from dtms_service.replay.entries import EntryRule
from dtms_service.replay.results import TradeResult, trade_results

ENTRY_COMMENT = "entry"


@dataclass(frozen=True, slots=True)
class HistoryJob:
    """What to run. ``sources`` are the files that ``ticks`` come from; ``entry_magic`` must differ from that of DTMS.

    ``bar_s`` is the length of the bars in ``bars.csv``, s. ``path_period_s`` is the length of the history's bars, None
    where it holds real ticks.
    """

    sources: Sequence[Path]
    ticks: Callable[[], Iterator[Tick]]
    account: PaperConfig
    spec: SymbolSpec
    trading: SymbolTrading
    entries: EntryRule
    strategy_types: tuple[str, ...]
    entry_magic: int
    bar_s: int
    path_period_s: int | None
    out: Path


@dataclass(frozen=True, slots=True)
class RunResult:
    figures: RunFigures
    trades: list[TradeResult]


class HistoryRun:
    """A job with its brokers and folder; make one with :func:`open_run`. The service acts through ``door``.

    With ``commands`` a run that was cut off can go on, see :mod:`broker.command_log`.
    """

    def __init__(self, job: HistoryJob, folder: RunFolder, commands: CommandLog | None) -> None:
        self.job, self._folder, self._commands = job, folder, commands
        self.broker: PaperBroker = RecordedBroker(job.account, folder.log)
        door = PaperDoor({job.account.account_id: self.broker})
        self.door = RecordedDoor(door) if commands is None else LoggedDoor(door, commands)
        self._shadow = PaperBroker(job.account)
        for broker in (self.broker, self._shadow):
            broker.add_symbol(job.spec, job.trading)

    @property
    def account_id(self) -> str:
        return self.job.account.account_id

    @property
    def logged_door(self) -> LoggedDoor:
        """The door of a run that has ``commands``."""
        assert isinstance(self.door, LoggedDoor), "a run that can go on has a log of its commands"
        return self.door

    @property
    def known_scores(self) -> list[ScoreReading]:
        """What the service had said of the first bars, before the run was cut off."""
        return self._folder.scores

    async def drive(self, link: Link) -> RunResult:
        """Run the whole history over ``link`` and write the results. Raises what the driver raises."""
        job = self.job
        driver = HistoryDriver(
            broker=self.broker,
            shadow=self._shadow,
            plan=RunPlan(
                symbol=job.spec.name,
                strategy_types=job.strategy_types,
                magic=job.entry_magic,
                comment=ENTRY_COMMENT,
                bar_s=job.bar_s,
                path_period_s=job.path_period_s,
            ),
            ticks=job.ticks(),
            entries=copy.deepcopy(job.entries),
            link=link,
            observer=self._folder,
        )
        figures = await driver.run()
        if not figures.ticks:
            raise invalid("history", f"{', '.join(map(str, job.sources))}: no ticks")
        distances = {
            opened.ticket: distance
            for opened in (trade.registration for trade in figures.trades if trade.registration.sl is None)
            if (distance := await link.risk_distance(opened.ticket)) is not None
        }
        trades = trade_results(figures.trades, self.broker, self._shadow, self.door, distances)
        self._folder.finish(figures, trades, symbol=job.spec.name, sources=job.sources)
        return RunResult(figures, trades)


@contextmanager
def open_run(job: HistoryJob, commands: CommandLog | None = None, *, goes_on: bool = False) -> Iterator[HistoryRun]:
    """The run with its folder open. One that ``goes_on`` is driven from its first tick on once more."""
    with RunFolder(job.out, entry_magic=job.entry_magic, goes_on=goes_on) as folder:
        yield HistoryRun(job, folder, commands)
