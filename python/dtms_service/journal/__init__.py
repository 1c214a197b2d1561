"""The journal: every accepted event, in order, durable before anybody hears of it.

``SqliteJournal`` stores, ``CommitQueue`` is its asyncio side (group commit), ``JournalReader``, ``verify_journal`` and
``export_journal`` read one that no service has open, ``backup`` makes copies.
"""

from dtms_service.journal.chain import MAX_GROUP_EVENTS
from dtms_service.journal.commit_queue import CommitQueue
from dtms_service.journal.export import export_journal, verify_journal
from dtms_service.journal.lock import DataDirectoryLock
from dtms_service.journal.protocol import GENESIS, Event, Journal, Progress, Snapshot, link, no_progress
from dtms_service.journal.reader import JournalReader, VerifyReport
from dtms_service.journal.sqlite import JOURNAL_NAME, OpenReport, SqliteJournal

__all__ = [
    "GENESIS",
    "JOURNAL_NAME",
    "MAX_GROUP_EVENTS",
    "CommitQueue",
    "DataDirectoryLock",
    "Event",
    "Journal",
    "JournalReader",
    "OpenReport",
    "Progress",
    "Snapshot",
    "SqliteJournal",
    "VerifyReport",
    "export_journal",
    "link",
    "no_progress",
    "verify_journal",
]
