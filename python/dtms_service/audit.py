"""The whole proof that a journal is good: its chain, each event as an event, and all of them as a history."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dtms_service import convert
from dtms_service._core import CoreError, CorePanic, Engine
from dtms_service.config import Config
from dtms_service.errors import JournalDamaged
from dtms_service.journal import JournalReader, Progress, VerifyReport

_PROGRESS_EVENTS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Audit:
    """``folded`` events gave the state; those up to ``folded_from`` (0: none) came out of a snapshot."""

    journal: VerifyReport
    folded_from: int
    folded: int
    trades: int
    open_trades: int


def audit(data_dir: Path, config: Config, progress: Progress) -> Audit:
    """Verify, decode and fold a journal that no service has open. Changes nothing.

    FileNotFoundError without a journal, DataDirectoryBusy while a service runs, JournalVersionUnknown; JournalDamaged
    names the first revision that cannot be trusted.
    """
    with JournalReader.open(data_dir, progress) as journal:
        report = journal.verify(progress)
        engine = Engine(
            config.to_core(),
            {name: int(rank) for name, rank in config.managers.items()},
            config.universal_strategies,
        )
        folded_from = 0
        if report.oldest_revision > 1:
            folded_from = _restore(journal, engine)
        for revision, body in journal.events(report.oldest_revision, report.newest_revision):
            _fold(journal.path, engine, revision, body, is_old=revision <= folded_from)
            if revision % _PROGRESS_EVENTS == 0:
                progress("fold events", revision, report.newest_revision)
        progress("fold events", report.newest_revision, report.newest_revision)
        if engine.revision != report.newest_revision:
            why = f"the history ends at {engine.revision}, the journal at {report.newest_revision}"
            raise JournalDamaged(journal.path, engine.revision + 1, why)
        return Audit(
            report,
            folded_from,
            report.newest_revision - max(folded_from, report.oldest_revision - 1),
            len(engine.keys(False)),
            len(engine.keys(True)),
        )


def _restore(journal: JournalReader, engine: Engine) -> int:
    """Revision of the snapshot that stands for the events that were compacted."""
    snapshot = journal.oldest_snapshot()
    if snapshot is None:
        raise JournalDamaged(journal.path, 1, "no snapshot of the compacted events verifies")
    try:
        engine.restore(snapshot.body)
    except (CoreError, CorePanic) as error:
        raise JournalDamaged(journal.path, snapshot.revision, f"its snapshot is no state: {error}") from error
    return snapshot.revision


def _fold(path: Path, engine: Engine, revision: int, body: bytes, *, is_old: bool) -> None:
    try:
        event = convert.decode_event(body)
    except CoreError as error:
        raise JournalDamaged(path, revision, f"is no event: {error}") from error
    if event["revision"] != revision:
        raise JournalDamaged(path, revision, f"says that it is {event['revision']}")
    if is_old:
        return
    try:
        engine.apply(event)
    except (CoreError, CorePanic) as error:
        raise JournalDamaged(path, revision, f"does not follow from the events before it: {error}") from error
