"""Proof that a journal is whole, and a copy of it that needs no SQLite to read."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, TextIO

from dtms_service.journal.protocol import Progress
from dtms_service.journal.reader import JournalReader, VerifyReport

_PROGRESS_EVENTS: Final = 10_000

Choose = Callable[[bytes], Mapping[str, object] | None]
"""What an exported line says of an event besides its bytes; None leaves the event out."""


def verify_journal(data_dir: Path, progress: Progress) -> VerifyReport:
    """Check the chain over every kept event, also those behind a snapshot.

    FileNotFoundError without a journal, DataDirectoryBusy while a service runs, JournalDamaged, JournalVersionUnknown.
    """
    with JournalReader.open(data_dir, progress) as journal:
        return journal.verify(progress)


def export_journal(
    data_dir: Path,
    out: TextIO,
    progress: Progress,
    *,
    first: int = 1,
    last: int | None = None,
    choose: Choose = lambda _body: {},
) -> tuple[VerifyReport, int]:
    """Verify all, then write one JSON object per event of the range: ``revision``, ``chain`` (hex), ``body`` (base64).

    Also the number of lines. Errors: as verify. Whoever has consecutive lines can prove them again: chain =
    sha256(previous chain || body).
    """
    written = 0
    with JournalReader.open(data_dir, progress) as journal:
        report = journal.verify(progress)
        end = report.newest_revision if last is None else min(last, report.newest_revision)
        for revision, chain, body in journal.rows(first, end):
            said = choose(body)
            if said is not None:
                line = {"revision": revision, "chain": chain.hex(), "body": base64.b64encode(body).decode(), **said}
                out.write(json.dumps(line, ensure_ascii=False) + "\n")
                written += 1
            if revision % _PROGRESS_EVENTS == 0:
                progress("export events", revision, end)
    return report, written
