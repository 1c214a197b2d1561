"""A shadow book on disk, and the record of the real account beside it: one file per account."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import apsw

from dtms_service.broker.door import AccountInfo, SymbolSpec
from dtms_service.broker.paper_store import PaperStore
from dtms_service.shadow.book import ShadowBook, shadow_config
from dtms_service.shadow.record import ChangeKind, RealChange, RealPosition

SHADOW_FOLDER: Final = "shadow"

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS origin (
    one INTEGER PRIMARY KEY CHECK (one = 1), body TEXT NOT NULL, conversion_rates TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS symbol (name TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS quote (name TEXT PRIMARY KEY, time_msc INTEGER, bid REAL, ask REAL) STRICT;
CREATE TABLE IF NOT EXISTS real_position (ticket INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS real_change (id INTEGER PRIMARY KEY, body TEXT NOT NULL) STRICT;
"""


class ShadowStore(PaperStore):
    """The book's positions and deals, the real account's positions and changes, and the last quotes of both.

    Made by ``open``. ``save`` makes all of it durable in one transaction, so after a crash the two still fit.
    """

    def __init__(self, path: Path, book: ShadowBook) -> None:
        super().__init__(path, book)
        self.book = book
        for (body,) in self._connection.execute("SELECT body FROM real_position ORDER BY ticket"):
            known = RealPosition(**json.loads(body))
            book.real[known.ticket] = known
        self._written = {ticket: dataclasses.replace(known) for ticket, known in book.real.items()}

    @classmethod
    def create_or_open(cls, path: Path, info: AccountInfo, conversion_rates: Mapping[str, float]) -> Self:
        """The account's book as it was left; a new one begins with the real account's balance."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        connection = apsw.Connection(str(path))
        with connection:
            connection.execute(_SCHEMA)
            if connection.execute("SELECT body FROM origin").get is None:
                connection.execute("INSERT INTO origin VALUES (1, ?, '')", (json.dumps(dataclasses.asdict(info)),))
            connection.execute("UPDATE origin SET conversion_rates = ?", (json.dumps(dict(conversion_rates)),))
        connection.close()
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Self:
        """A book that is there. FileNotFoundError where there is none."""
        if not path.exists():
            raise FileNotFoundError(path)
        connection = apsw.Connection(str(path))
        ((account, rates),) = connection.execute("SELECT body, conversion_rates FROM origin").fetchall()
        specs = [SymbolSpec(**json.loads(body)) for (body,) in connection.execute("SELECT body FROM symbol")]
        connection.close()
        book = ShadowBook(shadow_config(AccountInfo(**json.loads(str(account))), json.loads(str(rates))))
        book.list_or_change(specs)
        return cls(path, book)

    def save(self) -> None:
        book = self.book
        if book.saved and book.change_count == self._saved_change:
            return
        changed = [known for known in book.real.values() if self._written.get(known.ticket) != known]
        with self._connection:
            super().save()
            self._save_quotes()
            self._connection.executemany(
                "INSERT OR REPLACE INTO real_position VALUES (?, ?)", [(r.ticket, _text(r)) for r in changed]
            )
            self._connection.executemany(
                "INSERT INTO real_change (body) VALUES (?)", [(_text(change),) for change in book.changes]
            )
        book.changes.clear()
        book.saved = True
        self._written.update((known.ticket, dataclasses.replace(known)) for known in changed)

    def save_symbols(self) -> None:
        """After ``list_or_change``."""
        specs = [market.spec for market in self.book.book.markets.values()]
        self._connection.executemany(
            "INSERT OR REPLACE INTO symbol VALUES (?, ?)", [(spec.name, _text(spec)) for spec in specs]
        )

    def close(self) -> None:
        self._save_quotes()
        super().close()

    def release(self) -> None:
        """Close without a last write: for who only reads."""
        self._connection.close()

    def _save_quotes(self) -> None:
        """The last quotes value what is open."""
        quoted = [(m.spec.name, m.time_msc, m.bid, m.ask) for m in self.book.book.markets.values() if m.quoted]
        self._connection.executemany("INSERT OR REPLACE INTO quote VALUES (?, ?, ?, ?)", quoted)

    # ---- for the report

    def changes(self) -> list[RealChange]:
        """Everything that was seen of the real account, in order."""
        rows = self._connection.execute("SELECT body FROM real_change ORDER BY id")
        return [_change(json.loads(body)) for (body,) in rows]

    def recall_quotes(self) -> None:
        """Takes the quotes of the last save, without acting on them."""
        for name, time_msc, bid, ask in self._connection.execute("SELECT name, time_msc, bid, ask FROM quote"):
            self.book.market(name).quote(time_msc, bid, ask, 0)


def file_of(data_dir: Path, account_id: str) -> Path:
    return data_dir / SHADOW_FOLDER / f"{quote(account_id, safe='@ ')}.db"


def books_in(data_dir: Path) -> list[Path]:
    """The files of all accounts of a data directory."""
    return sorted((data_dir / SHADOW_FOLDER).glob("*.db"))


def _text(fact: Any) -> str:  # noqa: ANN401  any of the dataclasses here
    return json.dumps(dataclasses.asdict(fact))


def _change(body: dict[str, Any]) -> RealChange:
    return RealChange(**{**body, "kind": ChangeKind(body["kind"])})
