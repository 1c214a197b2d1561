"""The fence at the broker's edge: the highest fencing token seen for each trade, on disk before a command passes.

It refuses a command whose token is lower, whoever sends it and however often the gateway was started anew.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import apsw

from dtms_service import fault_disk
from dtms_service.errors import BooksFailed
from dtms_service.fault_points import Point, reach

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS fence (
    account_id TEXT NOT NULL, ticket INTEGER NOT NULL, token INTEGER NOT NULL, PRIMARY KEY (account_id, ticket)
) STRICT, WITHOUT ROWID;
"""
_RAISE: Final = "INSERT OR REPLACE INTO fence VALUES (?, ?, ?)"


class Fence:
    """One integer per trade ever commanded. ``path`` None keeps them in memory: for a broker that ends with us.

    Used from one thread.
    """

    def __init__(self, path: Path | None) -> None:
        self._connection: apsw.Connection | None = None
        self._tokens: dict[tuple[str, int], int] = {}
        if path is not None:
            self._connection = apsw.Connection(str(path), vfs=fault_disk.vfs_of(Point.FENCE_WRITE, Point.FENCE_SYNC))
            self._connection.pragma("journal_mode", "wal")
            self._connection.pragma("synchronous", "full")
            self._connection.execute(_SCHEMA)
            for account_id, ticket, token in self._connection.execute("SELECT account_id, ticket, token FROM fence"):
                self._tokens[str(account_id), int(ticket)] = int(token)

    def admit(self, account_id: str, ticket: int, token: int) -> bool:
        """False for a token lower than the highest seen; a higher one is durable when this returns. BooksFailed."""
        highest = self._tokens.get((account_id, ticket))
        if highest is not None and token < highest:
            return False
        if token != highest:
            if self._connection is not None:
                reach(Point.FENCE_RAISE)
                try:
                    self._connection.execute(_RAISE, (account_id, ticket, token))
                except apsw.Error as error:
                    raise BooksFailed(Path(self._connection.filename), str(error)) from error
                reach(Point.FENCE_RAISED)
            self._tokens[account_id, ticket] = token
        return True

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
