"""The last closed bars on disk, so that a restart finds warm indicators: no trade is judged by a market that forgot.

A cache: it is written without waiting for the disk, and where it is damaged the indicators start cold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import apsw
import structlog

from dtms_service.bars import KEPT, Closed, ClosedBar
from dtms_service.fault_points import Point, reach

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS bar (
    account_id TEXT, symbol TEXT, timeframe_s INTEGER, time_s INTEGER,
    open REAL, high REAL, low REAL, close REAL, volume REAL,
    PRIMARY KEY (account_id, symbol, timeframe_s, time_s)
) STRICT, WITHOUT ROWID;
"""
_NEW: Final = "INSERT OR REPLACE INTO bar VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_OLD: Final = """
DELETE FROM bar WHERE account_id = ?1 AND symbol = ?2 AND timeframe_s = ?3 AND time_s < (
    SELECT time_s FROM bar WHERE account_id = ?1 AND symbol = ?2 AND timeframe_s = ?3
    ORDER BY time_s DESC LIMIT 1 OFFSET ?4)
"""
_PRUNE_EVERY: Final = 100
"""Bars of one kind between two prunings: each is a scan of what is kept."""

log = structlog.get_logger(__name__)


class BarStore:
    """One file, one connection. A store that fails says so once and keeps nothing more."""

    def __init__(self, path: Path) -> None:
        """A damaged file is set aside as ``<name>.damaged``; an unusable place raises apsw.Error."""
        try:
            self._connection = _open(path)
        except (apsw.CorruptError, apsw.NotADBError) as error:
            aside = path.with_suffix(".damaged")
            log.warning("bars_damaged", path=str(path), kept_as=str(aside), why=str(error))
            path.replace(aside)
            for left in (path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
                left.unlink(missing_ok=True)
            self._connection = _open(path)
        self._path = path
        self._works = True
        self._added: dict[tuple[str, str, int], int] = {}

    def add(self, bars: Sequence[Closed]) -> None:
        """Keeps bars; never raises for a disk that does not take them."""
        if not self._works:
            return
        try:
            with self._connection:
                for closed in bars:
                    self._add(closed)
                reach(Point.BARS_WRITE)
            reach(Point.BARS_WRITTEN)
        except apsw.Error as error:
            self._works = False
            log.exception("bars_not_kept", path=str(self._path), why=str(error))

    def load(self, account_id: str) -> Iterator[tuple[str, int, ClosedBar]]:
        """(symbol, timeframe_s, bar) of an account, the longest bars first, each kind in order of time."""
        query = """
            SELECT symbol, timeframe_s, time_s, open, high, low, close, volume FROM bar WHERE account_id = ?
            ORDER BY symbol, timeframe_s DESC, time_s
        """
        rows: list[tuple[Any, ...]] = self._connection.execute(query, (account_id,)).fetchall()
        for symbol, timeframe_s, *values in rows:
            yield symbol, timeframe_s, ClosedBar(*values)

    def close(self) -> None:
        self._connection.close()

    def _add(self, closed: Closed) -> None:
        key = (closed.account_id, closed.symbol, closed.timeframe_s)
        self._connection.execute(_NEW, (*key, *closed.bar))
        added = self._added[key] = self._added.get(key, 0) + 1
        if added % _PRUNE_EVERY == 0:
            self._connection.execute(_OLD, (*key, KEPT - 1))


def _open(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    try:
        connection.pragma("journal_mode", "wal")
        # A crash of the process loses nothing; one of the machine may lose the cache.
        connection.pragma("synchronous", "off")
        connection.execute(_SCHEMA)
        connection.execute("SELECT count(*) FROM bar").fetchall()
    except BaseException:
        connection.close()
        raise
    return connection
