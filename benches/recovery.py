"""The start of a service with many open trades: journal, snapshot and comparison, beside what the broker takes."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import tempfile
import time
from collections.abc import Awaitable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import apsw

from benches.figures import Baseline, Figure, Target
from dtms.v1 import action_pb2
from dtms_service import convert, recovery
from dtms_service.broker.door import AccountInfo, ClosingDeal, Position, Report, Side, SymbolSpec
from dtms_service.broker.foreign import ForeignActor
from dtms_service.broker.paper import PaperBroker
from dtms_service.config import Config
from dtms_service.history import Tick
from dtms_service.journal import JOURNAL_NAME
from dtms_service.paper_account import PaperAccount
from dtms_service.service import paper_account
from dtms_service.settings import configuration
from dtms_service.stage import Stage
from dtms_service.system import System

SYMBOLS: Final = ("EURUSD", "GBPUSD", "AUDUSD", "NZDUSD")  # the trades are spread over them
T0_MSC: Final = 1_700_000_100_000
TRADES: Final = 10_000
AT_ONCE: Final = 500  # commands under way while the journal is made
AT_ONCE_LATER: Final = 8  # in small commits the log grows near to its limit: all of it is checked at the start
STOPS: Final = (1.0905, 1.0910)  # each trade's stop is moved so often: a decision, an intent and an outcome each
EXIT_MANAGER: Final = "intelligent_exit_manager"
T = TypeVar("T")

# In account currency: nobody is stopped out while ten thousand positions are open.
BALANCE: Final = 1e9


class TimedAccount(PaperAccount):
    """The paper account, and how long its reads took, s."""

    def __init__(self, broker: PaperBroker) -> None:
        super().__init__(broker, None)
        self.spent_s = 0.0

    async def account(self, account_id: str) -> AccountInfo:
        return await self._timed(super().account(account_id))

    async def symbol(self, account_id: str, name: str) -> SymbolSpec:
        return await self._timed(super().symbol(account_id, name))

    async def positions(self, account_id: str) -> list[Position]:
        return await self._timed(super().positions(account_id))

    async def report(self, account_id: str, since: int) -> Report:
        return await self._timed(super().report(account_id, since))

    async def closing_deals(self, account_id: str, position: int) -> list[ClosingDeal]:
        return await self._timed(super().closing_deals(account_id, position))

    async def _timed(self, asked: Awaitable[T]) -> T:
        started = time.perf_counter()
        try:
            return await asked
        finally:
            self.spent_s += time.perf_counter() - started


def measure(quick: bool) -> list[Figure]:
    """10,000 trades; 100 when quick."""
    trades = 100 if quick else TRADES
    # Below the working directory: /tmp may be memory.
    with tempfile.TemporaryDirectory(prefix=".bench-recovery-", dir=Path.cwd()) as name:
        folder = Path(name)
        made = asyncio.run(_make(folder, trades))
        log_mb = (folder / "killed" / f"{JOURNAL_NAME}-wal").stat().st_size / 1e6
        cases = {
            "stopped in good order": "stopped",
            f"killed {made.since_snapshot} events after its snapshot with a log of {log_mb:.0f} MB": "killed",
            f"with no snapshot, {made.events} events": "bare",
        }
        found = {words: asyncio.run(_start(folder / at, made.broker, trades)) for words, at in cases.items()}
        read_s = _bare(folder / "bare")
    starts = [
        Figure(
            f"start with {trades} open trades, {words} (beside {took.broker_s:.2f} s of the broker's own; "
            f"{took.cpu_s:.2f} s of processor time in all)",
            "s",
            took.wall_s - took.broker_s,
            Baseline("bare SQLite, all events read", read_s),
            Target("value", "at most", 2.0),
        )
        for words, took in found.items()
    ]
    held_ms = min(took.snapshot_s for took in found.values()) * 1e3
    return [*starts, Figure(f"a snapshot of {trades} trades, for which the loop stands still", "ms", held_ms)]


@dataclass(frozen=True, slots=True)
class Made:
    """What the journal is about; ``since_snapshot`` events follow the snapshot of the service that was killed."""

    broker: PaperBroker
    events: int
    since_snapshot: int


@dataclass(frozen=True, slots=True)
class Took:
    """One start: wall and processor time in all, of these what the broker's reads took; and one snapshot."""

    wall_s: float
    cpu_s: float
    broker_s: float
    snapshot_s: float


def _config(data_dir: Path, **more: object) -> Config:
    given = {"data_dir": data_dir, "paper.balance": BALANCE, "limits.max_trades": 2 * TRADES, **more}
    return configuration(None, paper=True, given=given)


async def _make(folder: Path, trades: int) -> Made:
    """Journals in ``folder`` with open trades whose stops were moved: ``killed``, ``stopped`` and ``bare``."""
    stopped = folder / "stopped"
    system = await System.open(_config(stopped), None)
    section = system.config.paper
    assert section is not None
    broker = paper_account(system.config, section).broker
    account = await _attach(system, broker)
    actor = ForeignActor(broker)
    names = list(itertools.islice(itertools.cycle(SYMBOLS), trades))
    tickets = [actor.open(name, Side.BUY, 0.01, 1.09, 1.2).order for name in names]
    held = zip(tickets, names, strict=True)
    await _in_turns((_register(system, (account, ticket), name) for ticket, name in held), AT_ONCE)
    await _in_turns((_move(system, (account, ticket), STOPS[0]) for ticket in tickets), AT_ONCE)
    await system.close()
    # The kill comes just before the snapshot is due.
    config = _config(stopped)
    due = config.journal.snapshot_every_events
    system = await System.open(_config(stopped, **{"journal.snapshot_every_events": 2 * due}), None)
    await _attach(system, broker)
    before = system.desk.engine.revision
    await _in_turns((_move(system, (account, ticket), STOPS[1]) for ticket in tickets), AT_ONCE_LATER)
    events = system.desk.engine.revision
    assert trades < TRADES or events - before >= due, "as far behind as it can be"
    shutil.copytree(stopped, folder / "killed", ignore=shutil.ignore_patterns("*lock*"))
    await system.close()
    shutil.copytree(stopped, folder / "bare", ignore=shutil.ignore_patterns("*lock*"))
    with closing(apsw.Connection(str(folder / "bare" / "journal.db"))) as connection:
        connection.execute("DELETE FROM snapshot")
    return Made(broker, events, events - before)


async def _attach(system: System, broker: PaperBroker) -> str:
    account = PaperAccount(broker, None)
    await system.attach(account.account_id, account, list(SYMBOLS))
    for name in SYMBOLS:
        broker.on_tick(name, T0_MSC, 1.1, 1.1001)
        tick = Tick(T0_MSC, 1.1, 1.1001, 1.0)
        await system.monitor.tick(account.account_id, name, tick, broker.change_count)
    return account.account_id


async def _in_turns(work: Iterable[Awaitable[None]], at_once: int) -> None:
    turn = asyncio.Semaphore(at_once)

    async def one(item: Awaitable[None]) -> None:
        async with turn:
            await item

    await asyncio.gather(*map(one, work))


async def _register(system: System, key: tuple[str, int], symbol: str) -> None:
    body = {
        "symbol": symbol,
        "side": Side.BUY.value,
        "entry_price": 1.1001,
        "volume": 0.01,
        "sl": 1.09,
        "tp": 1.2,
        "strategy_type": "",
        "opened_ns": T0_MSC * 1_000_000,
    }
    await system.desk.register(key, body, convert.ORIGIN_CLIENT, "bench")


async def _move(system: System, key: tuple[str, int], stop: float) -> None:
    epoch = system.desk.trade(key)["owner_epoch"]
    action = {"kind": action_pb2.ACTION_KIND_STOP, "stop": stop, "allow_loosen": False, "purpose": 9}
    verdict = await system.desk.propose(EXIT_MANAGER, f"{key[1]} {stop}", key, epoch, action)
    assert verdict.decision["granted"], verdict


async def _start(data_dir: Path, broker: PaperBroker, trades: int) -> Took:
    """From nothing to serving."""
    started, cpu_started = time.perf_counter(), time.process_time()
    system = await System.open(_config(data_dir), None)
    account = TimedAccount(broker)
    await system.attach(account.account_id, account, list(SYMBOLS))
    wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    assert system.stage is Stage.SERVING
    assert system.desk.engine.trade_count == trades
    started = time.perf_counter()
    recovery.snapshot_of(system.desk.engine)
    snapshot_s = time.perf_counter() - started
    await system.close()
    return Took(wall_s, cpu_s, account.spent_s, snapshot_s)


def _bare(data_dir: Path) -> float:
    """Every event read from the file, by nobody who wants to know what it says."""
    started = time.perf_counter()
    with closing(apsw.Connection(str(data_dir / "journal.db"))) as connection:
        for _row in connection.execute("SELECT revision, body, chain FROM event ORDER BY revision"):
            pass
    return time.perf_counter() - started
