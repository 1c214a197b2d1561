"""Recovery: the one way to start. Journal -> engine -> comparison with the broker -> serving.

Until it is done, writes are refused and health says NOT_SERVING (I22). Run twice it gives the same journal (I24).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

import structlog

from dtms_service import convert
from dtms_service._core import Engine
from dtms_service.bar_store import BarStore
from dtms_service.bars import KEPT, TIMEFRAMES_S, Closed, ClosedBars
from dtms_service.broker.door import BrokerDoor, BrokerUnavailable, Position
from dtms_service.desk import Desk, from_core
from dtms_service.doors import Doors
from dtms_service.errors import JournalDamaged
from dtms_service.executor import Executor
from dtms_service.journal import Journal, Snapshot
from dtms_service.journal.protocol import Progress

READ_CHUNK = 10_000  # events decoded at once while replaying: bounds memory, not the journal
RECALLED_EVENTS = 100_000  # before the snapshot, searched for decisions to list: about 0.3 s
RETRY_S = 1.0  # between two attempts to read a broker that does not answer

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Replayed:
    """What the journal gave: events folded, the snapshot's revision (0: none), the newest revision."""

    events: int
    snapshot_revision: int
    revision: int


def replay(desk: Desk, journal: Journal, progress: Progress) -> Replayed:
    """Folds the journal into a fresh engine. Blocking; before the commit queue takes the journal over.

    Raises JournalDamaged where an event does not follow from those before it.
    """
    engine: Engine = desk.engine
    snapshot = journal.load_snapshot()
    if snapshot is not None:
        engine.restore(snapshot.body)
        _recall(desk, journal, snapshot.revision)
    first = (snapshot.revision if snapshot else 0) + 1
    revision = first
    while events := journal.read(revision, READ_CHUNK):
        desk.replay(events)
        revision = events[-1][0] + 1
        progress("replaying", revision - first, journal.newest_revision - first + 1)
    if engine.revision != journal.newest_revision:
        raise JournalDamaged(
            journal.path,
            engine.revision + 1,
            f"the fold ends there, the journal at {journal.newest_revision}",
        )
    return Replayed(revision - first, first - 1, journal.newest_revision)


def _recall(desk: Desk, journal: Journal, newest: int) -> None:
    """Decisions up to ``newest``: the snapshot has their effects, not their list."""
    revision = max(journal.oldest_revision, newest - RECALLED_EVENTS + 1)
    while revision <= newest:
        events = journal.read(revision, min(READ_CHUNK, newest - revision + 1))
        desk.recall(events)
        revision += len(events)


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


async def reconcile(desk: Desk, doors: Doors, executor: Executor, account_id: str) -> None:
    """Compares an account's trades with its broker, which the monitor has attached. Waits for a broker that is silent.

    In both: volume and levels from the broker. Only at the broker: adopted, without an owner. Only in the journal:
    closed when a closing deal proves it, else left to the monitor, which quarantines it after repeated reports.
    """
    door = doors.of(account_id)
    for intent in desk.engine.open_intents():
        if intent["account_id"] == account_id:
            log.warning("intent_open", intent=intent["intent_id"], ticket=intent["ticket"])
            executor.settle(intent)
    await executor.idle()
    for position in await _positions(door, account_id):
        if desk.engine.position_owner(account_id, position.ticket) is None and not is_own_leg(position):
            await _adopt(desk, account_id, position)


async def _positions(door: BrokerDoor, account_id: str) -> list[Position]:
    while True:
        try:
            return await door.positions(account_id)
        except BrokerUnavailable as error:
            log.warning("recovery_waits", account=account_id, why=str(error))
            await asyncio.sleep(RETRY_S)


async def _adopt(desk: Desk, account_id: str, position: Position) -> None:
    body = {
        "symbol": position.symbol,
        "side": position.side.value,
        "entry_price": position.price_open,
        "volume": position.volume,
        "sl": position.sl,
        "tp": position.tp,
        "strategy_type": "",
        "opened_ns": position.time_msc * 1_000_000,
    }
    await desk.register((account_id, position.ticket), body, convert.ORIGIN_EXTERNAL, "")
    log.info("trade_adopted", account=account_id, ticket=position.ticket, symbol=position.symbol)


def is_own_leg(position: Position) -> bool:
    """Opened by an intent of DTMS (its settlement links it), so never a trade of its own."""
    return position.comment.startswith(convert.intent_comment(0)[:-1])


__all__ = ["Replayed", "from_core", "reconcile", "replay", "snapshot_of"]
