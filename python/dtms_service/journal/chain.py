"""Walks recorded events and proves that each one follows from the one before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import apsw

from dtms_service.errors import JournalDamaged, unreadable
from dtms_service.journal.protocol import Event, Progress, link

MAX_GROUP_EVENTS: Final = 4096
"""Events per commit at most (1 MiB of usual bodies, about 20 ms): so no torn tail can be longer."""

_PROGRESS_EVENTS: Final = 50_000
_MISMATCH: Final = "the event does not match its chain value"


@dataclass(slots=True)
class ChainReport:
    """``torn`` are the revisions at the very end that do not verify, with nothing sound behind them."""

    newest_revision: int
    chain_head: bytes
    events: int = 0
    torn: list[int] = field(default_factory=list)


def walk(connection: apsw.Connection, path: Path, after: int, chain: bytes, progress: Progress) -> ChainReport:
    """Verify all events behind revision ``after``, whose chain value is ``chain``. Streams; O(1) memory.

    JournalDamaged for a gap, an unreadable row, or a row that does not verify with a sound one behind it.
    """
    report = ChainReport(after, chain)
    stored = computed = chain  # both chains behind the first bad row: as written, and as its body says
    total = _count(connection, after)
    for revision, body, row_chain in _rows(connection, path, report):
        if revision != report.newest_revision + len(report.torn) + 1:
            raise JournalDamaged(path, report.newest_revision + 1, f"events are missing before revision {revision}")
        expected = link(computed, body)
        if not report.torn and row_chain == expected:
            report.newest_revision, report.chain_head = revision, row_chain
            report.events += 1
            if report.events % _PROGRESS_EVENTS == 0:
                progress("verify events", report.events, total)
        elif report.torn and (row_chain in (expected, link(stored, body)) or len(report.torn) == MAX_GROUP_EVENTS):
            raise JournalDamaged(path, report.torn[0], _MISMATCH)
        else:
            report.torn.append(revision)
        stored, computed = row_chain, expected
    progress("verify events", report.events, total)
    return report


def proven(rows: Sequence[tuple[int, bytes, bytes]], first: int, chain: bytes | None, count: int) -> list[Event]:
    """The events of (revision, body, chain value) from ``first`` on up to the first one that does not verify.

    ``chain`` is the value stored before them, None where there is none; ``count`` events ought to be there. Where the
    very first does not verify: ``unreadable``, with the first behind it that does, as far as ``rows`` go.
    """
    events: list[Event] = []
    damaged_at = None
    before: tuple[int, bytes | None] = (first - 1, chain)
    for revision, body, value in rows:
        follows = before[1] is not None and revision == before[0] + 1 and link(before[1], body) == value
        before = revision, value
        if damaged_at is not None:
            if follows:
                raise unreadable(damaged_at, revision, _MISMATCH)
        elif follows:
            events.append((revision, body))
        elif events:
            return events
        else:
            damaged_at = first
    if damaged_at is None and (events or count <= 0):
        return events
    raise unreadable(first, first + max(count, 1), _MISMATCH)


def _count(connection: apsw.Connection, after: int) -> int:
    return max(int(connection.execute("SELECT coalesce(max(revision), 0) FROM event").get) - after, 0)


def _rows(connection: apsw.Connection, path: Path, report: ChainReport) -> Iterator[tuple[int, bytes, bytes]]:
    rows = connection.execute(
        "SELECT revision, CAST(body AS BLOB), CAST(chain AS BLOB) FROM event WHERE revision > ? ORDER BY revision",
        (report.newest_revision,),
    )
    try:
        yield from rows
    except (apsw.CorruptError, apsw.IOError) as error:
        raise JournalDamaged(path, report.newest_revision + len(report.torn) + 1, str(error)) from error
