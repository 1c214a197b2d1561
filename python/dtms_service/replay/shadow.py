"""A shadow run that has ended, read from its data directory."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from dtms_service.journal.sqlite import JOURNAL_NAME
from dtms_service.replay.command import read_events
from dtms_service.report.shadow import ShadowReport, shadow_report
from dtms_service.shadow import ShadowStore, books_in
from dtms_service.shadow.results import Results


def read_shadow_run(data_dir: Path) -> ShadowReport:
    """Journal and books of a stopped service. FileNotFoundError, DataDirectoryBusy, JournalModeDiffers, as a start."""
    if not (data_dir / JOURNAL_NAME).exists():
        raise FileNotFoundError(data_dir / JOURNAL_NAME)
    events = list(read_events(data_dir, shadow=True))  # refuses where a service runs
    with ExitStack() as opened:
        accounts: dict[str, Results] = {}
        for file in books_in(data_dir):
            store = ShadowStore.open(file)
            opened.callback(store.release)
            accounts[store.book.config.account_id] = Results(store)
        return shadow_report(events, accounts)
