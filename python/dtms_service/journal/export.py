"""Reads a journal that no service has open: proof that it is whole, and a copy that needs no SQLite to read."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

import apsw

from dtms_service.errors import JournalDamaged, JournalVersionUnknown
from dtms_service.journal.chain import ChainReport, walk
from dtms_service.journal.lock import DataDirectoryLock
from dtms_service.journal.protocol import Progress
from dtms_service.journal.sqlite import FORMAT, JOURNAL_NAME, connect, format_of, query, scan

_PROGRESS_EVENTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """A journal that verifies from its oldest event to its newest. ``chain_head`` is 64 hex digits."""

    oldest_revision: int
    newest_revision: int
    chain_head: str
    torn_revisions: tuple[int, ...]


def verify_journal(data_dir: Path, progress: Progress) -> VerifyReport:
    """Check every kept event, also those behind a snapshot. Changes nothing.

    FileNotFoundError without a journal, DataDirectoryBusy while a service runs, JournalDamaged, JournalVersionUnknown.
    """
    with _opened(data_dir, progress) as (connection, base_revision, chain):
        return _report(base_revision, walk(connection, data_dir / JOURNAL_NAME, base_revision, chain, progress))


def export_journal(data_dir: Path, out: TextIO, progress: Progress) -> VerifyReport:
    """Verify, then write one JSON object per event: ``revision``, ``chain`` (hex), ``body`` (base64).

    Errors: as verify. Whoever has the file can prove it again: chain = sha256(previous chain || body).
    """
    with _opened(data_dir, progress) as (connection, base_revision, chain):
        found = walk(connection, data_dir / JOURNAL_NAME, base_revision, chain, progress)
        rows = connection.execute(
            "SELECT revision, chain, body FROM event WHERE revision <= ? ORDER BY revision", (found.newest_revision,)
        )
        for done, (revision, row_chain, body) in enumerate(rows, 1):
            line = {"revision": revision, "chain": row_chain.hex(), "body": base64.b64encode(body).decode()}
            out.write(json.dumps(line) + "\n")
            if done % _PROGRESS_EVENTS == 0:
                progress("export events", done, found.events)
        return _report(base_revision, found)


def _report(base_revision: int, found: ChainReport) -> VerifyReport:
    return VerifyReport(base_revision + 1, found.newest_revision, found.chain_head.hex(), tuple(found.torn))


@contextmanager
def _opened(data_dir: Path, progress: Progress) -> Iterator[tuple[apsw.Connection, int, bytes]]:
    path = data_dir / JOURNAL_NAME
    if not path.exists():
        raise FileNotFoundError(path)
    lock = DataDirectoryLock(data_dir)
    try:
        wal = scan(path, progress)
        connection = connect(path, None)
        try:
            found = format_of(connection)
            if found != FORMAT:
                raise JournalVersionUnknown(path, found, FORMAT)
            if wal.damage:
                newest = connection.execute("SELECT coalesce(max(revision), 0) FROM event").get
                raise JournalDamaged(path, int(newest) + 1, wal.damage)
            ((revision, chain),) = query(connection, "SELECT revision, chain FROM base")
            yield connection, revision, chain
        finally:
            connection.close()
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise JournalDamaged(path, 0, f"not readable as a database ({error})") from error
    finally:
        lock.release()
