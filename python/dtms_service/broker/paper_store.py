"""The books of the embedded paper account on disk: a broker does not forget positions when a client of it crashes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Final

import apsw

from dtms_service import fault_disk
from dtms_service.broker.door import Side
from dtms_service.broker.ledger import Deal
from dtms_service.broker.market import PaperPosition
from dtms_service.broker.mt5_enums import DealEntry, DealReason, DealType
from dtms_service.broker.paper import PaperBroker
from dtms_service.errors import BooksFailed
from dtms_service.fault_points import Point, reach

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS account (one INTEGER PRIMARY KEY CHECK (one = 1), body TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS position (ticket INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS deal (ticket INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;
"""
_COUNTERS: Final = ("now_msc", "change_count")


class PaperStore:
    """Positions, deals and counters of one broker. ``save`` after each change, before anybody learns of it."""

    def __init__(self, path: Path, broker: PaperBroker) -> None:
        self._broker = broker
        self._connection = apsw.Connection(str(path), vfs=fault_disk.vfs_of(Point.BOOKS_WRITE, Point.BOOKS_SYNC))
        self._connection.pragma("journal_mode", "wal")
        self._connection.pragma("synchronous", "full")
        self._connection.execute(_SCHEMA)
        self._saved_change = -1
        self._saved_deals = 0
        self._load()

    def save(self) -> None:
        """Make the books durable if they changed since the last time. BooksFailed when the disk refuses."""
        book = self._broker.book
        if book.change_count == self._saved_change:
            return
        reach(Point.BOOKS_SAVE)
        try:
            with self._connection:
                self._connection.execute("INSERT OR REPLACE INTO account VALUES (1, ?)", (json.dumps(self._account()),))
                self._save_positions(book.changed_since(self._saved_change))
                self._connection.executemany(
                    "INSERT INTO deal VALUES (?, ?)",
                    [(d.ticket, json.dumps(dataclasses.asdict(d))) for d in book.ledger.deals[self._saved_deals :]],
                )
        except apsw.Error as error:
            raise BooksFailed(Path(self._connection.filename), str(error)) from error
        reach(Point.BOOKS_SAVED)
        self._saved_change, self._saved_deals = book.change_count, len(book.ledger.deals)

    def _save_positions(self, changed: frozenset[int] | None) -> None:
        """Only what changed: a tick that moves one stop must not write a thousand positions."""
        positions = self._broker.book.positions
        if changed is None:
            self._connection.execute("DELETE FROM position")
            changed = frozenset(positions)
        else:
            self._connection.executemany("DELETE FROM position WHERE ticket = ?", [(ticket,) for ticket in changed])
        held = [positions[ticket] for ticket in sorted(changed) if ticket in positions]
        self._connection.executemany(
            "INSERT INTO position VALUES (?, ?)", [(p.ticket, json.dumps(_of_position(p))) for p in held]
        )

    def close(self) -> None:
        self.save()
        self._connection.close()

    def _account(self) -> dict[str, Any]:
        book = self._broker.book
        counters = {name: getattr(book, name) for name in _COUNTERS}
        return {**counters, "next_order": book.ledger.next_order, "next_deal": book.ledger.next_deal}

    def _load(self) -> None:
        row = self._connection.execute("SELECT body FROM account").fetchone()
        if row is None:
            return
        account, book = json.loads(row[0]), self._broker.book
        ledger = book.ledger
        ledger.deals.clear()
        ledger.balance_minor = 0
        for (body,) in self._connection.execute("SELECT body FROM deal ORDER BY ticket"):
            ledger.book(_deal(json.loads(body)))
        for (body,) in self._connection.execute("SELECT body FROM position ORDER BY ticket"):
            self._restore(json.loads(body))
        ledger.next_order, ledger.next_deal = account["next_order"], account["next_deal"]
        for name in _COUNTERS:
            setattr(book, name, account[name])
        self._saved_change, self._saved_deals = book.change_count, len(ledger.deals)

    def _restore(self, body: dict[str, Any]) -> None:
        market = self._broker.market(body.pop("symbol"))
        side, reason, leaving = Side(body.pop("side")), DealReason(body.pop("reason")), body.pop("exit")
        position = PaperPosition(
            market=market, side=side, reason=reason, exit=None if leaving is None else DealReason(leaving), **body
        )
        market.positions[position.ticket] = self._broker.book.positions[position.ticket] = position
        market.rewatch()


def _of_position(position: PaperPosition) -> dict[str, Any]:
    body = {f.name: getattr(position, f.name) for f in dataclasses.fields(position) if f.name != "market"}
    return {**body, "symbol": position.market.spec.name, "side": position.side.value}


def _deal(body: dict[str, Any]) -> Deal:
    return Deal(
        **{
            **body,
            "type": DealType(body["type"]),
            "entry": DealEntry(body["entry"]),
            "reason": DealReason(body["reason"]),
        }
    )
