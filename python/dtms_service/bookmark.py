"""How far a run in lockstep is, beside the journal: a service that was killed goes on from there.

The journal has every fact, but not which tick was the last that was done with, nor what stands beside the events: what
managers were to be told, and what the monitor had seen. One small row has it, written after each step. It is not waited
for (a kill loses nothing that was written; a power cut may lose the newest rows, and an older one is as good).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import apsw

from dtms_service import fault_disk
from dtms_service.fault_points import Point, reach

BOOKMARK: Final = "run.db"
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS bookmark (one INTEGER PRIMARY KEY CHECK (one = 1), body TEXT NOT NULL) STRICT;
"""
_PUT: Final = "INSERT OR REPLACE INTO bookmark VALUES (1, ?)"


@dataclass(frozen=True, slots=True)
class Seen:
    """What the monitor has seen of the account. ``equity`` is the last figure told, in account currency."""

    change_count: int
    seen_count: int
    trades: int
    has_moved: bool
    equity: float | None
    is_exposed: bool


@dataclass(frozen=True, slots=True)
class Told:
    """What a manager has been told: bars, and its own ``state``; ``results`` it has not been told yet."""

    bars: int
    state: str
    results: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Bookmark:
    """All that follows from the first ``done`` ticks is in the journal up to ``revision``, and nothing else is.

    ``run_id`` is the gateway's name of the run; ``seq`` is the managers' last step. ``has_ended``: with the history.
    """

    run_id: str
    account_id: str
    done: int
    revision: int
    seq: int
    seen: Seen
    managers: dict[str, Told] = field(default_factory=dict)
    has_ended: bool = False


class Bookmarks:
    """The newest bookmark of a data directory. Raises apsw.Error where the place cannot be used."""

    def __init__(self, path: Path) -> None:
        self._connection = apsw.Connection(str(path), vfs=fault_disk.vfs_of(Point.BOOKMARK_WRITE, Point.BOOKMARK_SYNC))
        self._connection.pragma("journal_mode", "wal")
        self._connection.pragma("synchronous", "normal")
        self._connection.execute(_SCHEMA)
        row = self._connection.execute("SELECT body FROM bookmark").fetchone()
        self.newest = None if row is None else _bookmark(json.loads(row[0]))

    def put(self, bookmark: Bookmark) -> None:
        """In place of the one before; survives a kill when this returns."""
        reach(Point.BOOKMARK)
        self._connection.execute(_PUT, (json.dumps(asdict(bookmark)),))
        reach(Point.BOOKMARK_PUT)
        self.newest = bookmark

    def clear(self) -> None:
        """There is no run to go on with."""
        self._connection.execute("DELETE FROM bookmark")
        self.newest = None

    def close(self) -> None:
        self._connection.close()


def _bookmark(body: dict[str, Any]) -> Bookmark:
    seen, managers = Seen(**body.pop("seen")), body.pop("managers")
    return Bookmark(**body, seen=seen, managers={name: Told(**told) for name, told in managers.items()})
