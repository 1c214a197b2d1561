"""Recovery: the one way to start. Journal -> engine -> comparison with the broker -> serving.

Until it is done, writes are refused and health says NOT_SERVING (I22). Run twice it gives the same journal (I24).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import TypeVar

import structlog

from dtms_service._core import CoreError, Engine
from dtms_service.bar_store import BarStore
from dtms_service.bars import KEPT, TIMEFRAMES_S, Closed, ClosedBars
from dtms_service.broker.door import BrokerDoor, BrokerUnavailable
from dtms_service.clock import Clock
from dtms_service.desk import Desk, from_core
from dtms_service.errors import DtmsError, JournalDamaged, damage_of
from dtms_service.executor import Executor
from dtms_service.journal import Event, Journal, Snapshot
from dtms_service.journal.protocol import Progress as Reading
from dtms_service.monitor import Monitor

READ_CHUNK = 10_000  # events decoded at once while replaying: bounds memory, not the journal
RECALLED_EVENTS = 100_000  # before the snapshot, searched for decisions to list: about 0.3 s
ATTEMPT_S = 30.0  # for one attempt to reach a broker: longer than its slowest call may take
RETRY_S = 1.0  # after the first attempt that failed; then twice as long each time
RETRY_MOST_S = 30.0

T = TypeVar("T")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the journal gave: events folded, the snapshot's revision (0: none), the newest revision.

    ``damage`` is the first event before the snapshot that was wanted and does not verify: its revision and words.
    """

    events: int
    snapshot_revision: int
    revision: int
    damage: tuple[int, str] | None = None


def replay(desk: Desk, journal: Journal, progress: Reading, *, until: int | None = None) -> Replayed:
    """Folds the journal into a fresh engine. Blocking; before the commit queue takes the journal over.

    ``until`` is the last revision that is folded: the desk makes those behind it once more (``Desk.repeat``). Such a
    journal is read from its first event on.
    Raises JournalDamaged where an event does not follow from those before it, or events are missing.
    """
    engine: Engine = desk.engine
    if until is not None:
        return _replay_until(desk, journal, until)
    snapshot, damage = _restored(engine, journal), None
    if snapshot is not None:
        damage = _recall(desk, journal, snapshot.revision)
    first = (snapshot.revision if snapshot else 0) + 1
    revision = first
    while events := _proven(journal, revision):
        desk.replay(events)
        revision = events[-1][0] + 1
        progress("replaying", revision - first, journal.newest_revision - first + 1)
    if engine.revision != journal.newest_revision:
        raise JournalDamaged(
            journal.path,
            engine.revision + 1,
            f"the fold ends there, the journal at {journal.newest_revision}",
        )
    return Replayed(revision - first, first - 1, journal.newest_revision, damage)


def _proven(journal: Journal, revision: int, limit: int = READ_CHUNK) -> list[Event]:
    try:
        return journal.read(revision, limit)
    except DtmsError as error:
        if (damage := damage_of(error)) is None:
            raise
        raise JournalDamaged(journal.path, damage[0], error.message) from error


def _replay_until(desk: Desk, journal: Journal, until: int) -> Replayed:
    if not journal.oldest_revision <= 1 <= until + 1 <= journal.newest_revision + 1:
        raise JournalDamaged(journal.path, journal.newest_revision + 1, f"the run had come to revision {until}")
    revision = 1
    while revision <= until:
        desk.replay(_proven(journal, revision, min(READ_CHUNK, until - revision + 1)))
        revision = desk.engine.revision + 1
    while revision <= journal.newest_revision:
        events = _proven(journal, revision)
        desk.repeat(events)
        revision = events[-1][0] + 1
    return Replayed(until, 0, journal.newest_revision)


def _restored(engine: Engine, journal: Journal) -> Snapshot | None:
    """The snapshot that the engine has taken; None for none, or one of an older version where all events are there.

    Raises JournalDamaged where they are not.
    """
    snapshot = journal.load_snapshot()
    if snapshot is None:
        return None
    try:
        engine.restore(snapshot.body)
    except CoreError as error:
        if journal.oldest_revision > 1:
            raise JournalDamaged(journal.path, journal.oldest_revision, f"its snapshot {error.args[2]}") from None
        log.warning("snapshot_not_used", revision=snapshot.revision, why=error.args[2])
        return None
    return snapshot


def _recall(desk: Desk, journal: Journal, newest: int) -> tuple[int, str] | None:
    """Decisions up to ``newest``: the snapshot has their effects, not their list. From the newest backwards.

    They end behind an event that does not verify, which is returned: a list must not have a gap.
    """
    oldest = max(journal.oldest_revision, newest - RECALLED_EVENTS + 1)
    while newest >= oldest:
        first = max(oldest, newest - READ_CHUNK + 1)
        events, damage = _behind_damage(journal, first, newest)
        if not desk.recall(events) or damage is not None:
            return damage
        newest = first - 1
    return None


def _behind_damage(journal: Journal, first: int, newest: int) -> tuple[list[Event], tuple[int, str] | None]:
    """The events of a range behind the last one that does not verify, and that one with words."""
    events: list[Event] = []
    damage = None
    while first <= newest:
        try:
            events += journal.read(first, newest - first + 1)
            first = events[-1][0] + 1
        except DtmsError as error:
            found = damage_of(error)
            if found is None:
                raise
            (revision, first), events = found, []
            damage = revision, str(error)
    return events, damage


def recall_bars(desk: Desk, bars: ClosedBars, store: BarStore, account_id: str, symbols: Collection[str]) -> int:
    """Warms an account's indicators with the bars of before the restart; how many there were.

    No trade is judged by them: what the market did while the service was away is judged by the prices that come.
    """
    recalled = 0
    for symbol, timeframe_s, bar in store.load(account_id):
        # A symbol may be listed no more.
        if symbol in symbols and bars.feed(account_id, symbol, timeframe_s, bar, tell=False):
            desk.recall_bar(account_id, symbol, timeframe_s, bar)
            recalled += 1
    return recalled


async def past_bars(
    desk: Desk, bars: ClosedBars, account_id: str, door: BrokerDoor, symbols: Collection[str]
) -> list[Closed]:
    """Warms an account's indicators with what its broker has kept and the service has not seen: those bars.

    As with ``recall_bars`` no trade is judged by them. Raises BrokerUnavailable.
    """
    found: list[Closed] = []
    for symbol in symbols:
        for timeframe_s in sorted(TIMEFRAMES_S, reverse=True):
            for bar in await door.past_bars(account_id, symbol, timeframe_s, KEPT):
                if bars.feed(account_id, symbol, timeframe_s, bar, tell=False):
                    desk.recall_bar(account_id, symbol, timeframe_s, bar)
                    found.append(Closed(0, account_id, symbol, timeframe_s, bar))
    return found


def snapshot_of(engine: Engine) -> Snapshot:
    return Snapshot(engine.revision, engine.snapshot())


class Progress:
    """How far the recovery of one account is: in words for status and log, with the attempts that failed."""

    def __init__(self, account_id: str, clock: Clock) -> None:
        self.account_id, self.detail = account_id, f"reaching the broker of {account_id}"
        self._clock, self._began_ns, self._attempts = clock, clock.mono_ns(), 0

    def now(self, doing: str) -> None:
        self.detail = f"{doing} {self.account_id}"
        log.info("recovery", account=self.account_id, doing=doing)

    async def wait(self, why: Exception) -> None:
        """After an attempt that failed: longer each time, for ever, and never in silence."""
        self._attempts += 1
        waited_s = (self._clock.mono_ns() - self._began_ns) // 1_000_000_000
        pause_s = min(RETRY_S * 2.0 ** min(self._attempts - 1, 10), RETRY_MOST_S)
        said = str(why) or type(why).__name__
        self.detail = f"waiting for the broker of {self.account_id} ({waited_s} s, attempt {self._attempts}): {said}"
        log.warning(
            "recovery_waits",
            account=self.account_id,
            attempt=self._attempts,
            waited_s=waited_s,
            again_in_s=pause_s,
            why=said,
        )
        await asyncio.sleep(pause_s)


async def patiently(progress: Progress, attempt: Callable[[], Awaitable[T]]) -> T:
    """What ``attempt`` gives once the broker answers it in time."""
    while True:
        try:
            async with asyncio.timeout(ATTEMPT_S):
                return await attempt()
        except (BrokerUnavailable, TimeoutError) as error:
            await progress.wait(error)


async def reconcile(desk: Desk, executor: Executor, monitor: Monitor, progress: Progress) -> None:
    """Compares an account's trades with its broker, which the monitor has attached. Waits for a broker that is silent.

    In both: volume and levels from the broker. Only at the broker: adopted, without an owner. Only in the journal:
    closed when a closing deal proves it, else left to the monitor, which quarantines it after repeated reports.
    """
    account_id = progress.account_id
    for intent in desk.engine.open_intents():
        if intent["account_id"] == account_id:
            log.warning("intent_open", intent=intent["intent_id"], ticket=intent["ticket"])
            executor.settle(intent)
    if under_way := executor.under_way(account_id):
        progress.now(f"settling {under_way} commands without an answer on")
        await executor.idle(account_id)
    progress.now("comparing the trades with the positions of")

    async def compare() -> None:
        await monitor.sync(account_id, -1, raises=True)

    await patiently(progress, compare)
    await executor.idle(account_id)


__all__ = ["Progress", "Replayed", "from_core", "patiently", "reconcile", "replay", "snapshot_of"]
