"""A journal that no service has open: reads it, changes nothing of what it holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import apsw

from dtms_service.errors import JournalDamaged, JournalVersionUnknown
from dtms_service.journal.backup import copy_pages
from dtms_service.journal.chain import ChainReport, walk
from dtms_service.journal.lock import DataDirectoryLock
from dtms_service.journal.protocol import Event, Progress, Snapshot
from dtms_service.journal.sqlite import FORMAT, JOURNAL_NAME, connect, format_of, query, scan, sound_snapshots


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """A journal that verifies from its oldest event to its newest. ``chain_head`` is 64 hex digits.

    ``torn_revisions`` are unfinished last events; the next start sets them aside.
    """

    oldest_revision: int
    newest_revision: int
    chain_head: str
    torn_revisions: tuple[int, ...]


class JournalReader:
    """Made by ``open``, which holds the data directory meanwhile."""

    def __init__(self, connection: apsw.Connection, path: Path, base_revision: int, base_chain: bytes) -> None:
        self._connection, self.path = connection, path
        self._base_revision, self._base_chain = base_revision, base_chain

    @classmethod
    @contextmanager
    def open(cls, data_dir: Path, progress: Progress) -> Iterator[Self]:
        """FileNotFoundError without a journal, DataDirectoryBusy while a service runs, JournalVersionUnknown.

        JournalDamaged for what cannot be read, here and in the block.
        """
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
                yield cls(connection, path, revision, chain)
            finally:
                connection.close()
        except (apsw.CorruptError, apsw.NotADBError) as error:
            raise JournalDamaged(path, 0, f"not readable as a database ({error})") from error
        finally:
            lock.release()

    def verify(self, progress: Progress) -> VerifyReport:
        """Check the chain over every kept event, also before a snapshot. JournalDamaged names the first bad one."""
        return self._report(walk(self._connection, self.path, self._base_revision, self._base_chain, progress))

    def events(self, first: int, last: int) -> Iterator[Event]:
        """The events of a range that was verified, in order."""
        for revision, _chain, body in self.rows(first, last):
            yield revision, body

    def rows(self, first: int, last: int) -> Iterator[tuple[int, bytes, bytes]]:
        """(revision, chain value, body) of a range that was verified, in order."""
        yield from self._connection.execute(
            "SELECT revision, chain, body FROM event WHERE revision BETWEEN ? AND ? ORDER BY revision", (first, last)
        )

    def oldest_snapshot(self) -> Snapshot | None:
        """The oldest that verifies."""
        return min(sound_snapshots(self._connection), key=lambda snapshot: snapshot.revision, default=None)

    def copy(self, target: Path) -> None:
        """LIMIT_REACHED where the copy cannot be written."""
        for _ in copy_pages(self._connection, target):
            pass

    def _report(self, found: ChainReport) -> VerifyReport:
        return VerifyReport(self._base_revision + 1, found.newest_revision, found.chain_head.hex(), tuple(found.torn))
